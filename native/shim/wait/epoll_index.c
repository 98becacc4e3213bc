/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <sys/mman.h>

#include "wait/epoll_index.h"
#include "wait/epoll_types.h"
#include "core/shim.h"
#include "core/sock.h"
#include "worker/entries.h"

static struct item **slot_of(struct epoll *ep, struct attachment *a, uint32_t n)
{
	uint32_t slot = a->slot;
	size_t size = GZ_SOCKS_MAX * sizeof(struct item *);

	if (!ep->index[slot]) {
		void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (p == MAP_FAILED)
			return NULL;
		ep->index[slot] = p;
	} else if (ep->index_of[slot] != a->serial) {
		(void)madvise(ep->index[slot], size, MADV_DONTNEED); /* the last worker's numbers mean nothing now */
	}
	ep->index_of[slot] = a->serial;
	return &ep->index[slot][n % GZ_SOCKS_MAX];
}

/* The item's set wants to hear of number n; of an exclusive one the worker wakes one sleeper, whichever process it is in. */
static void want_bells(struct item *item, struct attachment *a, uint32_t n)
{
	if (a->channel && item->events & EPOLLEXCLUSIVE)
		gz_or(&attachment_sock(a, n)->app.flags, GZ_APP_EXCLUSIVE);
	attachment_interest(a, n, item->ep->queue);
}

void index_put(struct epoll *ep, struct attachment *a, uint32_t n, struct item *item)
{
	struct item **slot;

	if (!item && (!ep->index[a->slot] || ep->index_of[a->slot] != a->serial))
		return;
	slot = slot_of(ep, a, n);
	if (slot)
		*slot = item;
	if (!attachment_is_open(a) || gz_load(&a->dead))
		return;
	if (item)
		want_bells(item, a, n);
	else
		attachment_no_interest(a, n, ep->queue);
}

void index_sock(struct epoll *ep, struct sock *s, struct item *item)
{
	if (sock_kind(s) == KIND_STREAM) {
		index_put(ep, s->attachment, s->n, item);
		return;
	}
	if (!s->entries)
		return;
	if (item)
		sock_ops_of(s)->interest(s, ep->queue, true);
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct attachment *a = __atomic_load_n(&s->entries->entry[i].attachment, __ATOMIC_ACQUIRE);

		if (a)
			index_put(ep, a, s->entries->entry[i].n, item);
	}
}

void index_claim(struct item *item, struct attachment *a, uint32_t n)
{
	struct item **slot = slot_of(item->ep, a, n);

	if (slot && *slot)
		want_bells(item, a, n); /* a opposite leads the chain this item is in */
	else
		index_put(item->ep, a, n, item);
}

struct item **index_of(struct epoll *ep, const struct attachment *a)
{
	return ep->index_of[a->slot] == a->serial ? ep->index[a->slot] : NULL;
}

void index_free(struct epoll *ep)
{
	for (uint32_t slot = 0; slot < ATTACHMENTS_MAX; slot++)
		if (ep->index[slot])
			munmap(ep->index[slot], GZ_SOCKS_MAX * sizeof(struct item *));
}
