/* SPDX-License-Identifier: MulanPSL-2.0 */
/* One with wait/epoll_nest: what is in an inner set is looked at as the outer set is. */
#include "wait/epoll_look.h"

#include "core/eventq.h"
#include "core/shim.h"
#include "core/sock.h"
#include "wait/epoll_index.h"
#include "wait/epoll_item.h"
#include "wait/epoll_nest.h"
#include "wait/epoll_order.h"

#define BELL_BUDGET 4096u

static void on_bell(void *index, uint32_t n)
{
	if (!index)
		return; /* rung for the queue's owner before us */
	for (struct item *item = ((struct item **)index)[n]; item; item = item->same_sock)
		epoll_item_changed(item);
}

struct pair_bells {
	struct epoll *ep;
	struct attachment *attachment;
};

/* Number 0 of a pair announces connections, for whichever listener. */
static void on_pair_bell(void *ctx, uint32_t n)
{
	struct pair_bells *bells = ctx;
	struct epoll *ep = bells->ep;

	if (n) {
		on_bell(index_of(ep, bells->attachment), n);
		return;
	}
	for (struct item *item = ep->others; item; item = item->other)
		if (item->s && sock_kind(item->s) == KIND_LISTENER)
			epoll_item_changed(item);
}

static void look_at_all(struct epoll *ep, struct attachment *a)
{
	for (struct item *item = ep->items; item; item = item->after)
		if (item->stack && (sock_kind(item->s) != KIND_STREAM || item->s->attachment == a))
			epoll_item_changed(item);
}

/* Bells of all attachments. A shared queue's bells are nobody's: then everything is looked at. */
static void take_own_bells(struct epoll *ep)
{
	if (ep->queue == UINT32_MAX)
		return;
	if (ep->queue == EVENTQ_SHARED) {
		for (struct item *item = ep->items; item; item = item->after)
			if (item->stack)
				epoll_item_changed(item);
		return;
	}
	ATTACHMENT_EACH(a, i)
	{
		struct gz_bell *bell = attachment_bell(a, ep->queue);
		struct pair_bells bells = { ep, a };

		if (!bell && attachment_is_program(a) && !a->ops->hears(a, ep->queue))
			look_at_all(ep, a); /* no event queue was left there for this set */
		if (!bell || !gz_bell_pending(bell))
			continue;
		if (a->channel)
			gz_bell_take(bell, BELL_BUDGET, on_bell, index_of(ep, a));
		else
			gz_bell_take(bell, BELL_BUDGET, on_pair_bell, &bells);
	}
}

void epoll_take_bells(struct epoll *ep)
{
	struct item *last = ep->last;

	take_own_bells(ep);
	if (gz_load(&ep->nested))
		nest_take_changes(ep);
	if (ep->last != last)
		epoll_order_after(ep, last);
}

/* Bells of a set without stack sockets are its queue's last owner's; of a shared queue they mean nothing. */
bool epoll_bells_pending(struct epoll *ep)
{
	return gz_load(&ep->stack_items) && ep->queue != EVENTQ_SHARED && eventq_rung(ep->queue);
}

/* What moves when a stream's state does: connected, the end of either direction, death. */
static uint32_t stream_marks(struct sock *s)
{
	return (sock_peer_flags(s) & (GZ_WORKER_CONNECTED | GZ_WORKER_FIN | GZ_WORKER_DEAD)) |
	       (gz_load(&s->me->flags) & (GZ_APP_SHUT_RD | GZ_APP_SHUT_WR));
}

/* The same as epoll_look() below, of a set in the set. */
static uint32_t look_inner(struct item *item, bool report)
{
	uint32_t heard = item->heard, level = item->events & (EPOLLIN | EPOLLRDNORM);

	if (item->events & EPOLLET && !item->edge && heard == item->seen_received)
		return 0;
	if (!level || !nest_ready(item))
		return 0;
	if (report) {
		item->edge = false;
		item->seen_received = heard;
		/* If the wake-up came to us, the threads that wait in the inner set have not been woken. */
		epoll_wake_sleepers(item->inner);
	}
	return level;
}

uint32_t epoll_look(struct item *item, bool report)
{
	struct sock *s = item->s;
	uint32_t level, received, flags, nospace;
	const struct sock_ops *ops;

	if (!(item->events & ~EPOLL_HOW))
		return 0; /* a one-shot that has fired */
	if (item->inner)
		return look_inner(item, report);
	ops = sock_ops_of(s);
	if (!(item->events & EPOLLET))
		return ops->level(s, item->events) & item->events;
	/* The marks before the level: what comes between is an edge of its own. */
	received = ops->received(s);
	flags = sock_kind(s) == KIND_STREAM ? stream_marks(s) : 0;
	nospace = gz_load(&s->nospace);
	level = ops->level(s, item->events) & item->events;
	if (!level)
		return 0;
	if (!item->edge && received == item->seen_received && flags == item->seen_flags &&
	    !(level & EPOLLOUT && nospace != item->seen_nospace))
		return 0;
	if (report) {
		item->edge = false;
		item->seen_received = received;
		item->seen_flags = flags;
		if (level & EPOLLOUT)
			item->seen_nospace = nospace;
	}
	return level;
}

bool epoll_any_ready(struct epoll *ep)
{
	struct item *item, *next;

	for (item = ep->first; item; item = next) {
		next = item->next;
		if (epoll_look(item, false))
			return true;
		epoll_item_rest(item);
	}
	return false;
}

void epoll_begin(struct item *item)
{
	if (!item->stack && !item->inner)
		return;
	epoll_take_bells(item->ep); /* what has become ready before comes first */
	if (epoll_look(item, false))
		epoll_item_changed(item);
	epoll_wake_sleepers(item->ep);
}
