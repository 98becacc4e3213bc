/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>

#include "attach.h"
#include "dgram.h"
#include "epoll_set.h"
#include "eventq.h"
#include "fdtable.h"
#include "listen.h"
#include "real.h"
#include "shim.h"
#include "sock.h"
#include "stream.h"

#define BELL_BUDGET 4096u

static void on_bell(void *index, uint32_t n)
{
	if (!index)
		return; /* rung for the queue's owner before us */
	for (struct item *item = ((struct item **)index)[n]; item; item = item->twin)
		epoll_item_activate(item);
}

struct pair_bells {
	struct epoll *ep;
	struct link *link;
};

/* Number 0 of a pair announces connections, for whichever listener. */
static void on_pair_bell(void *ctx, uint32_t n)
{
	struct pair_bells *bells = ctx;
	struct epoll *ep = bells->ep;
	uint32_t slot = bells->link->slot;

	if (n) {
		if (ep->index[slot] && ep->index_of[slot] == bells->link->serial)
			on_bell(ep->index[slot], n);
		return;
	}
	for (struct item *item = ep->items; item; item = item->after)
		if (item->stack && sock_kind(item->s) == KIND_LISTENER)
			epoll_item_activate(item);
}

/* Bells of all links become active items. A shared queue's bells are nobody's: then everything is looked at. */
static void take_bells(struct epoll *ep)
{
	if (ep->queue == UINT32_MAX)
		return;
	if (ep->queue == EVENTQ_SHARED) {
		for (struct item *item = ep->items; item; item = item->after)
			if (item->stack)
				epoll_item_activate(item);
		return;
	}
	LINK_EACH(link, i)
	{
		if (link->pair) {
			struct pair_bells bells = { ep, link };

			if (gz_bell_pending(link_bell(link, ep->queue)))
				gz_bell_take(link_bell(link, ep->queue), BELL_BUDGET, on_pair_bell, &bells);
			continue;
		}
		if (link->channel && gz_bell_pending(link_bell(link, ep->queue)))
			gz_bell_take(link_bell(link, ep->queue), BELL_BUDGET, on_bell,
			             ep->index_of[i] == link->serial ? ep->index[i] : NULL);
	}
}

/* Of a listener or a datagram socket. */
static uint32_t other_level(struct sock *s, uint32_t want)
{
	if (sock_kind(s) == KIND_DGRAM)
		return dgram_level(s, want);
	return listen_ready(s) ? EPOLLIN | EPOLLRDNORM : 0u;
}

static uint32_t other_arrivals(struct sock *s)
{
	return sock_kind(s) == KIND_DGRAM ? dgram_arrivals(s) : listen_arrivals(s);
}

/* What moves when a stream's state does: connected, the end of either direction, death. */
static uint32_t stream_marks(struct sock *s)
{
	return (sock_peer_flags(s) & (GZ_WORKER_CONNECTED | GZ_WORKER_FIN | GZ_WORKER_DEAD)) |
	       (gz_load(&s->me->flags) & (GZ_APP_SHUT_RD | GZ_APP_SHUT_WR));
}

/* What the program is to hear of this item now; 0 = nothing. `report`: an edge counts as told. */
static uint32_t look(struct item *item, bool report)
{
	struct sock *s = item->s;
	bool listener = sock_kind(s) != KIND_STREAM;
	uint32_t level, arrivals, flags, nospace;

	if (!(item->events & ~EPOLL_HOW))
		return 0; /* a one-shot that has fired */
	if (!(item->events & EPOLLET)) {
		level = listener ? other_level(s, item->events) : stream_level(s, item->events);
		return level & item->events;
	}
	/* The marks before the level: what comes between is an edge of its own. */
	arrivals = listener ? other_arrivals(s) : gz_load_acquire(&s->peer->out_head);
	flags = listener ? 0 : stream_marks(s);
	nospace = gz_load(&s->nospace);
	level = listener ? other_level(s, item->events) : stream_level(s, item->events);
	level &= item->events;
	if (!level)
		return 0;
	if (!item->edge && arrivals == item->seen_arrivals && flags == item->seen_flags &&
	    !(level & EPOLLOUT && nospace != item->seen_nospace))
		return 0;
	if (report) {
		item->edge = false;
		item->seen_arrivals = arrivals;
		item->seen_flags = flags;
		if (level & EPOLLOUT)
			item->seen_nospace = nospace;
	}
	return level;
}

/* Reports active items, oldest first; those still ready go to the end, so that all get their turn. ep->lock held. */
static int gather(struct epoll *ep, struct epoll_event *events, int most)
{
	int n = 0;

	take_bells(ep);
	for (uint32_t left = ep->active; left && n < most; left--) {
		struct item *item = ep->first;
		uint32_t level;

		epoll_item_rest(item);
		level = look(item, true);
		if (!level)
			continue;
		events[n++] = (struct epoll_event){ .events = level, .data = item->data };
		if (item->events & EPOLLONESHOT)
			item->events &= EPOLL_HOW;
		else if (!(item->events & EPOLLET))
			epoll_item_activate(item);
	}
	/* Another thread may serve what did not fit. */
	if (n == most && ep->first && ep->sleepers)
		eventq_wake(ep->queue);
	return n;
}

static int gather_locked(struct epoll *ep, struct epoll_event *events, int most)
{
	int n;

	lock_take(&ep->lock);
	n = gather(ep, events, most);
	lock_give(&ep->lock);
	return n;
}

/* A listener that kernel and stack serve is in both sets: the same descriptor is reported once. */
static int merge(struct epoll_event *events, int first, int second)
{
	int n = first;

	for (int i = first; i < first + second; i++) {
		int same = 0;

		while (same < first && events[same].data.u64 != events[i].data.u64)
			same++;
		if (same < first)
			events[same].events |= events[i].events;
		else
			events[n++] = events[i];
	}
	return n;
}

/* Events of kernel descriptors, without waiting. -errno if the set is none any more. */
static int look_kernel(int epfd, struct epoll_event *events, int most)
{
	int n = REAL(epoll_wait)(epfd, events, most, 0);

	return n < 0 ? errno == EINTR ? 0 : -errno : n;
}

/* One look at everything. `kernel`: at the real set in any case, else only if it is its turn. */
static int look_all(struct epoll *ep, int epfd, struct epoll_event *events, int most, bool kernel)
{
	int n, more;

	if (gz_load(&ep->kernel_items) && !kernel) {
		uint64_t now = now_ns();

		kernel = now - ep->kernel_looked >= WAIT_KERNEL_NS;
		if (kernel)
			ep->kernel_looked = now;
	}
	if (!kernel || (!gz_load(&ep->kernel_items) && gz_load(&ep->stack_items)))
		return gather_locked(ep, events, most);
	if (!gz_load(&ep->stack_items))
		return look_kernel(epfd, events, most);
	/* The kernel's first: they get their turn rarely, the stack's always. But not twice if they left no room. */
	bool stack_first = ep->crowded_out;

	ep->crowded_out = false;
	n = stack_first ? gather_locked(ep, events, most) : look_kernel(epfd, events, most);
	if (n < 0)
		return n;
	if (n == most) {
		ep->crowded_out = !stack_first;
		return n;
	}
	more = stack_first ? look_kernel(epfd, events + n, most - n) : gather_locked(ep, events + n, most - n);
	if (more < 0)
		return n ? n : more;
	return n && more ? merge(events, n, more) : n + more;
}

/* Bells of a set without stack sockets are its queue's last owner's. */
static bool something_pending(struct epoll *ep)
{
	return ep->first || (gz_load(&ep->stack_items) && eventq_rung(ep->queue));
}

static int sleep_in(struct epoll *ep, int epfd, struct wait *w)
{
	struct pollfd set = { .fd = epfd, .events = POLLIN };
	int err = 0;

	lock_take(&ep->lock);
	ep->sleepers++;
	lock_give(&ep->lock);
	eventq_declare(ep->queue);
	if (!something_pending(ep))
		err = wait_block(w, &set, 1);
	lock_take(&ep->lock);
	/* The worker takes the declaration back when it wakes us; others may still sleep. */
	if (--ep->sleepers)
		eventq_declare(ep->queue);
	else
		eventq_retract(ep->queue);
	lock_give(&ep->lock);
	return err;
}

static void claim_links(void)
{
	WORKER_EACH(link, i)
	{
		if (__builtin_expect(!link->channel, 0))
			(void)attach_claim(link);
	}
}

static int wait_in(struct epoll *ep, int epfd, struct epoll_event *events, int most, int64_t timeout_ns,
                   const sigset_t *sigmask)
{
	int n = look_all(ep, epfd, events, most, timeout_ns == 0 || !gz_load(&ep->stack_items)), err;
	struct wait w;

	if (n || timeout_ns == 0) {
		wait_skipped();
		return n;
	}
	wait_begin(&w, &ep->spin, ep->queue, timeout_ns, sigmask);
	for (;;) {
		enum wait_next next = gz_load(&ep->stack_items) ? wait_next(&w) : WAIT_SLEEP;

		if (next == WAIT_LOOK) {
			if (!something_pending(ep))
				continue;
			n = look_all(ep, epfd, events, most, false);
		} else if (next == WAIT_KERNEL || next == WAIT_TIMEOUT) {
			n = look_all(ep, epfd, events, most, true);
		} else {
			err = sleep_in(ep, epfd, &w);
			n = look_all(ep, epfd, events, most, true);
			if (!n && err)
				n = err;
			if (!n && w.now >= w.deadline)
				break;
		}
		if (n || next == WAIT_TIMEOUT)
			break;
	}
	wait_end(&w, n > 0);
	return n;
}

int epoll_wait_for(struct epoll *ep, int epfd, struct epoll_event *events, int most, int64_t timeout_ns,
                   const sigset_t *sigmask)
{
	int n;

	if (most <= 0)
		return -EINVAL;
	if (!events)
		return -EFAULT;
	/* A thread that sleeps here must hear of a socket another thread adds: hence the queue, even with none in the set. */
	lock_take(&ep->lock);
	if (fd_epoll(epfd) != ep) {
		lock_give(&ep->lock);
		return -EBADF;
	}
	if (ep->queue == UINT32_MAX)
		ep->queue = eventq_take();
	epoll_get(ep);
	lock_give(&ep->lock);
	claim_links();
	n = wait_in(ep, epfd, events, most, timeout_ns, sigmask);
	epoll_put(ep);
	return n;
}

bool epoll_has_items(struct epoll *ep)
{
	return gz_load(&ep->stack_items) != 0;
}

uint32_t epoll_queue(struct epoll *ep)
{
	return ep->queue;
}

bool epoll_ready(struct epoll *ep)
{
	struct item *item, *next;
	bool ready = false;

	lock_take(&ep->lock);
	take_bells(ep);
	for (item = ep->first; item && !ready; item = next) {
		next = item->next;
		ready = look(item, false) != 0;
		if (!ready)
			epoll_item_rest(item);
	}
	lock_give(&ep->lock);
	return ready;
}
