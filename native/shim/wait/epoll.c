/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>

#include "wait/epoll_index.h"
#include "wait/epoll_nest.h"
#include "wait/epoll.h"
#include "wait/epoll_item.h"
#include "wait/epoll_look.h"
#include "wait/epoll_set.h"
#include "core/eventq.h"
#include "worker/program.h"
#include "core/fdtable.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"

/* A one-shot that has fired. What the real set has, too, must not tell it once more. ep->lock held. */
static void disarm(struct item *item)
{
	struct epoll_event none = { .events = EPOLLONESHOT, .data = item->data };

	item->events &= EPOLL_HOW;
	if (item->real && fd_epoll(item->ep->fd) == item->ep)
		(void)epoll_real_change(item->ep, item->ep->fd, EPOLL_CTL_MOD, item->fd, &none);
}

/* Reports active items, oldest first; those still ready go to the end, so that all get their turn. Entered. */
static int gather(struct epoll *ep, struct epoll_event *events, int most)
{
	int n = 0;

	epoll_take_bells(ep);
	for (uint32_t left = ep->active; left && n < most; left--) {
		struct item *item = ep->first;
		uint32_t level;

		epoll_item_rest(item);
		level = epoll_look(item, true);
		if (!level)
			continue;
		events[n++] = (struct epoll_event){ .events = level, .data = item->data };
		if (item->events & EPOLLONESHOT)
			disarm(item);
		else if (!(item->events & EPOLLET))
			epoll_item_activate(item);
	}
	/* What did not fit, and what is as ready as before, is for other threads that wait here. */
	if (n && ep->first)
		epoll_wake_sleepers(ep);
	return n;
}

static int gather_locked(struct epoll *ep, struct epoll_event *events, int most)
{
	bool items = epoll_set_enter(ep);
	int n = gather(ep, events, most);

	epoll_set_leave(ep, items);
	return n;
}

/* One-shots that both sets have, and that the kernel just told: these are spent for the stack, too. */
static void spend(struct epoll *ep, const struct epoll_event *events, int n)
{
	bool items = epoll_set_enter(ep);

	for (struct item *item = ep->others; item; item = item->other) {
		if (!item->real || !(item->events & EPOLLONESHOT))
			continue;
		for (int i = 0; i < n; i++)
			if (events[i].data.u64 == item->data.u64)
				item->events &= EPOLL_HOW;
	}
	epoll_set_leave(ep, items);
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

/* The real set's descriptor; -1 if another thread closed it: a waiting call goes on waiting, but for the stack alone. */
static int real_set(struct epoll *ep, int epfd)
{
	return fd_epoll(epfd) == ep ? epfd : -1;
}

/* Events of kernel descriptors, without waiting. */
static int look_kernel(struct epoll *ep, int epfd, struct epoll_event *events, int most)
{
	int fd = real_set(ep, epfd), n = fd < 0 ? 0 : (int)UNCANCELLED(epoll_pwait, fd, events, most, 0, NULL, 0);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (n && gz_load(&ep->double_shots))
		spend(ep, events, n);
	return n;
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
		return look_kernel(ep, epfd, events, most);
	/* The kernel's first: they get their turn rarely, the stack's always. But not twice if they left no room. */
	bool stack_first = ep->crowded_out;

	ep->crowded_out = false;
	n = stack_first ? gather_locked(ep, events, most) : look_kernel(ep, epfd, events, most);
	if (n < 0)
		return n;
	if (n == most) {
		ep->crowded_out = !stack_first;
		return n;
	}
	more = stack_first ? look_kernel(ep, epfd, events + n, most - n) : gather_locked(ep, events + n, most - n);
	if (more < 0)
		return n ? n : more;
	return n && more ? merge(events, n, more) : n + more;
}

/* Is there anything to look at? A glance, without a lock. */
static bool anything_to_look_at(struct epoll *ep)
{
	bool pending;

	if (ep->first || ep->queue == EVENTQ_SHARED || epoll_bells_pending(ep))
		return true;
	if (!gz_load(&ep->nested))
		return false;
	bool items = epoll_set_enter(ep);

	pending = nest_pending(ep);
	epoll_set_leave(ep, items);
	return pending;
}

/* The second look before a sleep. Under the lock: a thread that changes the set after it sees that we sleep. */
static bool something_pending(struct epoll *ep)
{
	bool items = epoll_set_enter(ep), pending;

	if (ep->queue == EVENTQ_SHARED)
		epoll_take_bells(ep);
	pending = ep->queue == EVENTQ_SHARED ? epoll_any_ready(ep) : ep->first || epoll_bells_pending(ep);
	pending = pending || nest_pending(ep);
	epoll_set_leave(ep, items);
	return pending;
}

static int sleep_in(struct epoll *ep, int epfd, struct wait *w)
{
	struct pollfd fds[1 + NEST_QUEUES] = { { .fd = real_set(ep, epfd), .events = POLLIN } };
	uint32_t queues[NEST_QUEUES], n = epoll_queues_of(ep, queues, NEST_QUEUES);
	int err = 0;

	w->deaf = (ep->queue == EVENTQ_SHARED && gz_load(&ep->stack_items)) || n > NEST_QUEUES;
	if (n > NEST_QUEUES)
		n = NEST_QUEUES;
	for (uint32_t i = 0; i < n; i++)
		eventq_declare(queues[i]);
	for (uint32_t i = 1; i < n; i++) {
		fds[i] = (struct pollfd){ .fd = eventq_fd(queues[i]), .events = POLLIN };
		w->deaf |= queues[i] == EVENTQ_SHARED;
	}
	if (!something_pending(ep))
		err = wait_block(w, fds, n);
	for (uint32_t i = 1; i < n; i++)
		if (fds[i].revents)
			eventq_drain(queues[i]);
	for (uint32_t i = 0; i < n; i++)
		eventq_retract(queues[i]);
	return err;
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
			if (!anything_to_look_at(ep))
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
	epoll_need_queue(ep);
	epoll_get(ep);
	lock_give(&ep->lock);
	attachment_claim_all();
	n = wait_in(ep, epfd, events, most, timeout_ns, sigmask);
	epoll_put(ep);
	return n;
}

bool epoll_has_items(struct epoll *ep)
{
	return gz_load(&ep->stack_items) != 0;
}

uint32_t epoll_queues_of(struct epoll *ep, uint32_t *queues, uint32_t room)
{
	bool items = epoll_set_enter(ep);
	uint32_t n = nest_queues(ep, queues, room);

	epoll_set_leave(ep, items);
	return n;
}

bool epoll_ready(struct epoll *ep)
{
	bool items = epoll_set_enter(ep), ready;

	epoll_take_bells(ep);
	ready = epoll_any_ready(ep);
	/* If the wake-up came to us, the threads that wait in the set itself have not been woken. */
	if (ready)
		epoll_wake_sleepers(ep);
	epoll_set_leave(ep, items);
	return ready;
}
