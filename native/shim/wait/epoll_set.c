/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "wait/epoll.h"
#include "wait/epoll_index.h"
#include "wait/epoll_nest.h"
#include "wait/epoll_set.h"
#include "core/eventq.h"
#include "core/fdtable.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"
#include "worker/entries.h"

static struct epoll *all, *unused; /* type-stable, as sockets are; pool */
static struct lock pool;

/* ------------------------------------------------------------------ sets */

void epoll_opened(int fd)
{
	struct epoll *ep;

	if ((unsigned int)fd >= FD_MAX)
		return;
	lock_take(&pool);
	ep = unused;
	if (ep) {
		unused = ep->next;
	} else {
		ep = mmap(NULL, sizeof(*ep), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (ep == MAP_FAILED) {
			lock_give(&pool);
			return;
		}
	}
	memset((char *)ep + offsetof(struct epoll, refs), 0, sizeof(*ep) - offsetof(struct epoll, refs));
	ep->next = all;
	all = ep;
	lock_give(&pool);
	ep->fd = fd;
	ep->queue = UINT32_MAX;
	gz_store(&ep->refs, 1);
	fd_forget(fd);
	fd_put(fd, (uintptr_t)ep | FD_EPOLL);
}

struct epoll *epoll_take(int fd)
{
	for (;;) {
		struct epoll *ep = fd_epoll(fd);
		bool same;

		if (!ep)
			return NULL;
		lock_take(&ep->lock);
		same = fd_epoll(fd) == ep; /* then its descriptor holds it still */
		if (same)
			epoll_get(ep);
		lock_give(&ep->lock);
		if (same)
			return ep;
	}
}

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

void epoll_get(struct epoll *ep)
{
	gz_add(&ep->refs, 1);
}

/* ------------------------------------------------------------------ active list */

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

/* ------------------------------------------------------------------ membership */

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

/* The item begins to be served by the stack. shim.items and ep->lock held. */
static void to_stack(struct item *item)
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
	epoll_item_changed(item);
	epoll_wake_sleepers(ep);
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
	if (item->stack || item->inner) {
		note_double_shot(item);
		epoll_item_changed(item);
		epoll_wake_sleepers(item->ep);
	}
}

/* ------------------------------------------------------------------ epoll_ctl */

#define EXCLUSIVE_ALLOWS ((uint32_t)(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE))

static struct item *find(struct epoll *ep, struct sock *s, int fd)
{
	for (struct item *item = s->items; item; item = item->next_of_owner)
		if (item->ep == ep && item->fd == fd)
			return item;
	return NULL;
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

static int add(struct epoll *ep, int epfd, struct sock *s, int fd, struct epoll_event *event)
{
	bool stack = sock_kind(s) != KIND_FRESH;
	bool in_real = !stack || (sock_kind(s) != KIND_STREAM && s->entries->both);
	struct item *item;
	int err;

	if (event->events & EPOLLEXCLUSIVE && event->events & ~EXCLUSIVE_ALLOWS)
		return -EINVAL;
	if (find(ep, s, fd))
		return -EEXIST;
	item = calloc(1, sizeof(*item));
	if (!item)
		return -ENOMEM;
	if (in_real) {
		err = epoll_real_change(ep, epfd, EPOLL_CTL_ADD, fd, event);
		if (err) {
			free(item);
			return err;
		}
	}
	item->s = s;
	item->real = in_real;
	epoll_item_enter(item, ep, fd, event);
	if (stack)
		to_stack(item);
	return 0;
}

static int modify(struct item *item, int epfd, struct epoll_event *event)
{
	int err;

	if ((item->events | event->events) & EPOLLEXCLUSIVE)
		return -EINVAL;
	if (item->real) {
		err = epoll_real_change(item->ep, epfd, EPOLL_CTL_MOD, item->fd, event);
		if (err)
			return err;
	}
	epoll_item_modify(item, event);
	return 0;
}

static int change_item(struct epoll *ep, int epfd, int op, struct sock *s, int fd, struct epoll_event *event)
{
	struct item *item = find(ep, s, fd);
	int err = 0;

	if (op == EPOLL_CTL_ADD)
		return add(ep, epfd, s, fd, event);
	if (!item)
		return -ENOENT;
	if (op == EPOLL_CTL_MOD)
		return modify(item, epfd, event);
	if (item->real)
		err = epoll_real_change(ep, epfd, EPOLL_CTL_DEL, fd, NULL);
	epoll_item_drop(item);
	return err;
}

int epoll_change(struct epoll *ep, int epfd, int op, int fd, struct epoll_event *event)
{
	struct sock *s = sock_enter(fd, true);
	struct epoll *inner = s ? NULL : epoll_take(fd);
	int err;

	if (inner) {
		err = inner == ep || (op != EPOLL_CTL_DEL && !event) ? epoll_real_change(ep, epfd, op, fd, event)
		                                                     : nest_change(ep, epfd, op, fd, inner, event);
		epoll_put(inner);
		return err;
	}
	if (!s)
		return epoll_real_change(ep, epfd, op, fd, event);
	if (op != EPOLL_CTL_ADD && op != EPOLL_CTL_MOD && op != EPOLL_CTL_DEL) {
		err = -EINVAL;
		goto out;
	}
	if (op != EPOLL_CTL_DEL && !event) {
		err = -EFAULT;
		goto out;
	}
	if (sock_kind(s) == KIND_STREAM)
		sock_ready(s);
	lock_take(&shim.items);
	lock_take(&ep->lock);
	err = fd_epoll(epfd) == ep ? change_item(ep, epfd, op, s, fd, event) : -EBADF;
	lock_give(&ep->lock);
	lock_give(&shim.items);
out:
	lock_give(&s->tx);
	return err;
}

/* ------------------------------------------------------------------ what happens to sockets */

void epoll_became(struct sock *s, bool both)
{
	lock_take(&shim.items);
	for (struct item *item = s->items; item; item = item->next_of_owner) {
		lock_take(&item->ep->lock);
		/* A number that is another file's by now the kernel would take out of the set for us. */
		if (!both && item->real && fd_sock(item->fd) == s) {
			(void)epoll_real_change(item->ep, item->ep->fd, EPOLL_CTL_DEL, item->fd, NULL);
			item->real = false;
		}
		if (!item->stack)
			to_stack(item);
		lock_give(&item->ep->lock);
	}
	lock_give(&shim.items);
}

void epoll_activate(struct sock *s)
{
	lock_take(&shim.items);
	for (struct item *item = s->items; item; item = item->next_of_owner) {
		lock_take(&item->ep->lock);
		if (item->stack) {
			epoll_item_changed(item);
			epoll_wake_sleepers(item->ep);
		}
		lock_give(&item->ep->lock);
	}
	lock_give(&shim.items);
}

void epoll_claim(struct sock *s, struct attachment *a, uint32_t n)
{
	lock_take(&shim.items);
	for (struct item *item = s->items; item; item = item->next_of_owner) {
		lock_take(&item->ep->lock);
		if (item->stack) {
			index_claim(item, a, n);
			epoll_item_changed(item);
			epoll_wake_sleepers(item->ep);
		}
		lock_give(&item->ep->lock);
	}
	lock_give(&shim.items);
}

void epoll_unclaim(struct sock *s, struct attachment *a, uint32_t n)
{
	lock_take(&shim.items);
	for (struct item *item = s->items; item; item = item->next_of_owner) {
		lock_take(&item->ep->lock);
		index_put(item->ep, a, n, NULL);
		lock_give(&item->ep->lock);
	}
	lock_give(&shim.items);
}

void epoll_closing(struct sock *s)
{
	if (!__atomic_load_n(&s->items, __ATOMIC_ACQUIRE))
		return;
	lock_take(&shim.items);
	for (struct item *item = s->items; item; item = item->next_of_owner) {
		struct epoll *ep = item->ep;

		lock_take(&ep->lock);
		if (item->real && fd_epoll(ep->fd) == ep)
			(void)epoll_real_change(ep, ep->fd, EPOLL_CTL_DEL, item->fd, NULL);
		lock_give(&ep->lock);
	}
	lock_give(&shim.items);
}

void epoll_forget(struct sock *s)
{
	if (!__atomic_load_n(&s->items, __ATOMIC_ACQUIRE))
		return;
	lock_take(&shim.items);
	while (s->items) {
		struct epoll *ep = s->items->ep;

		lock_take(&ep->lock);
		epoll_item_drop(s->items);
		lock_give(&ep->lock);
	}
	lock_give(&shim.items);
}

void epoll_put(struct epoll *ep)
{
	if (gz_add(&ep->refs, (uint32_t)-1) != 1)
		return;
	lock_take(&shim.items);
	lock_take(&ep->lock);
	while (ep->items)
		epoll_item_drop(ep->items);
	lock_give(&ep->lock);
	nest_leave(ep);
	lock_give(&shim.items);
	index_free(ep);
	if (ep->queue != UINT32_MAX)
		eventq_give(ep->queue);
	lock_take(&pool);
	struct epoll **p = &all;
	while (*p != ep)
		p = &(*p)->next;
	*p = ep->next;
	ep->next = unused;
	unused = ep;
	lock_give(&pool);
}

static void put_set(void *p)
{
	epoll_put(p);
}

const struct fd_ops epoll_fd_ops = { .put = put_set };

/* ------------------------------------------------------------------ forks */

void epoll_before_fork(void)
{
	lock_take(&shim.items);
	lock_take(&pool);
	for (struct epoll *ep = all; ep; ep = ep->next)
		lock_take(&ep->lock);
}

void epoll_after_fork(void)
{
	for (struct epoll *ep = all; ep; ep = ep->next)
		lock_give(&ep->lock);
	lock_give(&pool);
	lock_give(&shim.items);
}

uint64_t epoll_queues(void)
{
	uint64_t queues = 0;

	for (struct epoll *ep = all; ep; ep = ep->next)
		if (ep->queue != UINT32_MAX)
			queues |= 1ull << ep->queue;
	return queues;
}
