/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "wait/epoll_index.h"
#include "wait/epoll_item.h"
#include "wait/epoll_look.h"
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
	memset((char *)ep + offsetof(struct epoll, fd), 0, sizeof(*ep) - offsetof(struct epoll, fd));
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
		same = fd_epoll(fd) == ep;
		if (same)
			epoll_get(ep);
		lock_give(&ep->lock);
		if (same)
			return ep;
	}
}

void epoll_get(struct epoll *ep)
{
	refs_get(&ep->refs);
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
		epoll_item_to_stack(item);
	epoll_begin(item);
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
	epoll_begin(item);
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
		if (!item->stack) {
			epoll_item_to_stack(item);
			epoll_begin(item);
		}
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
	if (!refs_put(&ep->refs))
		return;
	lock_take(&shim.items);
	lock_take(&ep->lock);
	if (!refs_end(&ep->refs)) {
		lock_give(&ep->lock);
		lock_give(&shim.items);
		return;
	}
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
