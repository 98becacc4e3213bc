/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <sys/mman.h>

#include "wait/epoll_index.h"
#include "wait/epoll_set.h"
#include "stream/listen.h"
#include "core/shim.h"
#include "core/sock.h"

static struct item **slot_of(struct epoll *ep, struct link *link, uint32_t n)
{
	uint32_t slot = link->slot;
	size_t size = GZ_SOCKS_MAX * sizeof(struct item *);

	if (!ep->index[slot]) {
		void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (p == MAP_FAILED)
			return NULL;
		ep->index[slot] = p;
	} else if (ep->index_of[slot] != link->serial) {
		(void)madvise(ep->index[slot], size, MADV_DONTNEED); /* the last worker's numbers mean nothing now */
	}
	ep->index_of[slot] = link->serial;
	return &ep->index[slot][n % GZ_SOCKS_MAX];
}

/* The item's set wants to hear of number n; of an exclusive one the worker wakes one sleeper, whichever process it is in. */
static void want_bells(struct item *item, struct link *link, uint32_t n)
{
	if (!link->pair && item->events & EPOLLEXCLUSIVE)
		gz_or(&link_sock(link, n)->app.flags, GZ_APP_EXCLUSIVE);
	link_interest(link, n, item->ep->queue);
}

void index_put(struct epoll *ep, struct link *link, uint32_t n, struct item *item)
{
	struct item **slot;

	if (!item && (!ep->index[link->slot] || ep->index_of[link->slot] != link->serial))
		return;
	slot = slot_of(ep, link, n);
	if (slot)
		*slot = item;
	if (!link_is_open(link) || gz_load(&link->dead))
		return;
	if (item)
		want_bells(item, link, n);
	else
		link_no_interest(link, n, ep->queue);
}

void index_sock(struct epoll *ep, struct sock *s, struct item *item)
{
	if (sock_kind(s) == KIND_STREAM) {
		index_put(ep, s->link, s->n, item);
		return;
	}
	if (!s->listener)
		return;
	if (item)
		pair_listen_interest(ep->queue);
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct link *link = __atomic_load_n(&s->listener->entry[i].link, __ATOMIC_ACQUIRE);

		if (link)
			index_put(ep, link, s->listener->entry[i].n, item);
	}
}

void index_claim(struct item *item, struct link *link, uint32_t n)
{
	struct item **slot = slot_of(item->ep, link, n);

	if (slot && *slot)
		want_bells(item, link, n); /* a twin leads the chain this item is in */
	else
		index_put(item->ep, link, n, item);
}

struct item **index_of(struct epoll *ep, const struct link *link)
{
	return ep->index_of[link->slot] == link->serial ? ep->index[link->slot] : NULL;
}

void index_free(struct epoll *ep)
{
	for (uint32_t slot = 0; slot < SHIM_LINKS; slot++)
		if (ep->index[slot])
			munmap(ep->index[slot], GZ_SOCKS_MAX * sizeof(struct item *));
}
