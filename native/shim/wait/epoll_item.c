/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "wait/epoll_item.h"

#include <errno.h>
#include <stdlib.h>

#include "core/eventq.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"
#include "wait/epoll_index.h"

bool epoll_set_enter(struct epoll *ep)
{
	for (;;) {
		bool items = gz_load(&ep->nested);

		if (items)
			lock_take(&shim.items);
		lock_take(&ep->lock);
		if (items || !gz_load(&ep->nested))
			return items;
		lock_give(&ep->lock);
	}
}

void epoll_set_leave(struct epoll *ep, bool items)
{
	lock_give(&ep->lock);
	if (items)
		lock_give(&shim.items);
}

void epoll_need_queue(struct epoll *ep)
{
	if (ep->queue == UINT32_MAX)
		ep->queue = eventq_take();
}

void epoll_item_activate(struct item *item)
{
	struct epoll *ep = item->ep;

	if (item->active)
		return;
	item->active = true;
	item->next = NULL;
	item->prev = ep->last;
	if (ep->last)
		ep->last->next = item;
	else
		ep->first = item;
	ep->last = item;
	ep->active++;
}

void epoll_item_changed(struct item *item)
{
	item->ep->changes++;
	epoll_item_activate(item);
}

void epoll_item_rest(struct item *item)
{
	struct epoll *ep = item->ep;

	if (!item->active)
		return;
	item->active = false;
	if (item->prev)
		item->prev->next = item->next;
	else
		ep->first = item->next;
	if (item->next)
		item->next->prev = item->prev;
	else
		ep->last = item->prev;
	ep->active--;
}

void epoll_wake_sleepers(struct epoll *ep)
{
	if (ep->queue != UINT32_MAX && eventq_sleepers(ep->queue))
		eventq_wake(ep->queue);
}

/* First of the items of s in ep other than `but`. shim.items held. */
static struct item *same_sock_in(struct epoll *ep, struct sock *s, const struct item *but)
{
	for (struct item *item = s->items; item; item = item->next_of_owner)
		if (item->ep == ep && item != but && item->stack)
			return item;
	return NULL;
}

/* One-shots that both sets have must be spent in both. */
static void note_double_shot(struct item *item)
{
	if (item->events & EPOLLONESHOT && item->real && (item->stack || item->inner))
		gz_store(&item->ep->double_shots, true);
}

static void join_others(struct item *item)
{
	struct epoll *ep = item->ep;

	item->other = ep->others;
	item->other_from = &ep->others;
	if (item->other)
		item->other->other_from = &item->other;
	ep->others = item;
}

static void leave_others(struct item *item)
{
	*item->other_from = item->other;
	if (item->other)
		item->other->other_from = item->other_from;
}

void epoll_item_to_stack(struct item *item)
{
	struct epoll *ep = item->ep;

	epoll_need_queue(ep);
	item->same_sock = same_sock_in(ep, item->s, item);
	item->stack = true;
	item->edge = true;
	gz_add(&ep->stack_items, 1);
	if (sock_kind(item->s) != KIND_STREAM || item->real)
		join_others(item);
	note_double_shot(item);
	index_sock(ep, item->s, item);
}

static struct item **owner_of(struct item *item)
{
	return item->inner ? &item->inner->within : &item->s->items;
}

void epoll_item_enter(struct item *item, struct epoll *ep, int fd, const struct epoll_event *event)
{
	struct item **owner = owner_of(item);

	item->ep = ep;
	item->fd = fd;
	item->events = event->events | EPOLLERR | EPOLLHUP;
	item->data = event->data;
	item->edge = true;
	item->next_of_owner = *owner;
	*owner = item;
	note_double_shot(item);
	item->after = ep->items;
	if (ep->items)
		ep->items->before = item;
	ep->items = item;
	if (item->inner)
		join_others(item);
}

/* The stack's part of leaving: bells, and the other descriptors of the same socket. */
static void leave_stack(struct item *item)
{
	struct epoll *ep = item->ep;
	struct item *rest = NULL;

	/* Rebuild the chain of items of the same socket without it; more than one is rare. */
	for (struct item *other = item->s->items; other; other = other->next_of_owner)
		if (other->ep == ep && other->stack) {
			other->same_sock = rest;
			rest = other;
		}
	index_sock(ep, item->s, rest);
	gz_add(&ep->stack_items, (uint32_t)-1);
}

void epoll_item_drop(struct item *item)
{
	struct epoll *ep = item->ep;
	struct item **p = owner_of(item);

	while (*p != item)
		p = &(*p)->next_of_owner;
	*p = item->next_of_owner;
	if (item->before)
		item->before->after = item->after;
	else
		ep->items = item->after;
	if (item->after)
		item->after->before = item->before;
	if (item->other_from)
		leave_others(item);
	epoll_item_rest(item);
	if (item->stack)
		leave_stack(item);
	if (item->inner) {
		gz_add(&ep->stack_items, (uint32_t)-1);
		gz_add(&ep->nested, (uint32_t)-1);
	}
	free(item);
}

void epoll_item_modify(struct item *item, const struct epoll_event *event)
{
	item->events = event->events | EPOLLERR | EPOLLHUP;
	item->data = event->data;
	item->edge = true;
	if (item->stack || item->inner)
		note_double_shot(item);
}

int epoll_real_change(struct epoll *ep, int epfd, int op, int fd, struct epoll_event *event)
{
	if (REAL(epoll_ctl)(epfd, op, fd, event))
		return -errno;
	if (op == EPOLL_CTL_ADD)
		gz_add(&ep->kernel_items, 1);
	else if (op == EPOLL_CTL_DEL && gz_load(&ep->kernel_items))
		gz_add(&ep->kernel_items, (uint32_t)-1);
	return 0;
}
