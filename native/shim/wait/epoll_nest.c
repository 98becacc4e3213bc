/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "wait/epoll_nest.h"
#include "wait/epoll_item.h"
#include "wait/epoll_look.h"
#include "core/eventq.h"
#include "core/fdtable.h"
#include "core/shim.h"

static struct item *find(struct epoll *ep, struct epoll *inner, int fd)
{
	for (struct item *item = inner->within; item; item = item->next_of_owner)
		if (item->ep == ep && item->fd == fd)
			return item;
	return NULL;
}

static int add(struct epoll *ep, int epfd, int fd, struct epoll *inner, struct epoll_event *event)
{
	struct item *item = calloc(1, sizeof(*item));
	int err;

	if (!item)
		return -ENOMEM;
	err = epoll_real_change(ep, epfd, EPOLL_CTL_ADD, fd, event); /* it knows loops, and depths it does not like */
	if (err) {
		free(item);
		return err;
	}
	item->inner = inner;
	item->real = true;
	lock_take(&inner->lock);
	item->heard = inner->changes;
	epoll_need_queue(inner);
	lock_give(&inner->lock);
	epoll_item_enter(item, ep, fd, event);
	epoll_need_queue(ep);
	gz_add(&ep->nested, 1);
	gz_add(&ep->stack_items, 1);
	epoll_begin(item);
	return 0;
}

static int change(struct epoll *ep, int epfd, int op, int fd, struct epoll *inner, struct epoll_event *event)
{
	struct item *item = find(ep, inner, fd);
	int err;

	if (op == EPOLL_CTL_ADD && !item)
		return add(ep, epfd, fd, inner, event);
	err = epoll_real_change(ep, epfd, op, fd, event);
	if (err || !item)
		return err;
	if (op == EPOLL_CTL_DEL) {
		epoll_item_drop(item);
	} else {
		epoll_item_modify(item, event);
		epoll_begin(item);
	}
	return 0;
}

int nest_change(struct epoll *ep, int epfd, int op, int fd, struct epoll *inner, struct epoll_event *event)
{
	int err;

	lock_take(&shim.items);
	lock_take(&ep->lock);
	if (fd_epoll(epfd) == ep && fd_epoll(fd) == inner)
		err = change(ep, epfd, op, fd, inner, event);
	else
		err = -EBADF; /* another thread closed one of them */
	lock_give(&ep->lock);
	lock_give(&shim.items);
	return err;
}

#define INNER_EACH(ep, item)                                             \
	for (struct item *item = (ep)->others; item; item = item->other) \
		if (item->inner)

void nest_take_changes(struct epoll *ep)
{
	INNER_EACH(ep, item)
	{
		struct epoll *inner = item->inner;

		lock_take(&inner->lock);
		epoll_take_bells(inner);
		if (inner->changes != item->heard) {
			item->heard = inner->changes;
			epoll_item_changed(item);
		}
		lock_give(&inner->lock);
	}
}

bool nest_pending(struct epoll *ep)
{
	bool pending = false;

	if (!gz_load(&ep->nested))
		return false;
	INNER_EACH(ep, item)
	{
		struct epoll *inner = item->inner;

		lock_take(&inner->lock);
		pending |= inner->changes != item->heard || epoll_bells_pending(inner) || nest_pending(inner);
		lock_give(&inner->lock);
	}
	return pending;
}

bool nest_ready(struct item *item)
{
	bool ready;

	lock_take(&item->inner->lock);
	ready = epoll_any_ready(item->inner);
	lock_give(&item->inner->lock);
	return ready;
}

uint32_t nest_queues(struct epoll *ep, uint32_t *queues, uint32_t room)
{
	uint32_t n = 1;

	epoll_need_queue(ep);
	if (room)
		queues[0] = ep->queue;
	if (!gz_load(&ep->nested))
		return n;
	INNER_EACH(ep, item)
	{
		lock_take(&item->inner->lock);
		n += nest_queues(item->inner, n < room ? queues + n : NULL, n < room ? room - n : 0);
		lock_give(&item->inner->lock);
	}
	return n;
}

void nest_leave(struct epoll *inner)
{
	while (inner->within) {
		struct epoll *ep = inner->within->ep;

		lock_take(&ep->lock);
		epoll_item_drop(inner->within);
		lock_give(&ep->lock);
	}
}
