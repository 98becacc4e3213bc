/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Everything here may be forged by any host of the link, so everything is bounded and costs the same however full it is:
 * a hash table of entries, two lists of them by age, one budget for packets that wait. An entry to which nothing has been
 * sent since it was made known is "idle": those go first, the oldest of them before all. One that carries traffic is never
 * evicted.
 */
#include "net/neighbour_table.h"

#include <stddef.h>

#include <lwip/pbuf.h>
#include <lwip/sys.h>

#include <hooks.h>

#define BUCKETS 4096u
#define WAITING_MAX (1u << 20) /* bytes of packets that wait for answers, in all */
#define WAITING_EACH 212992u   /* and for one neighbour: Linux's unres_qlen_bytes */
#define BUSY_MS 10000u         /* an entry that has carried traffic within this time is not evicted */

struct list {
	struct neighbour *oldest, *newest;
};

static struct neighbour all[NEIGHBOURS_MAX], *buckets[BUCKETS], *unused;
static struct list idle, carrying;
static uint32_t made, waiting_bytes;

static struct neighbour **bucket_of(const ip_addr_t *addr)
{
	uint32_t hash = IP_IS_V6(addr) ? ip_2_ip6(addr)->addr[3] : ip_2_ip4(addr)->addr;

	if (IP_IS_V6(addr))
		hash = (hash * 0x85ebca6bu) ^ ip_2_ip6(addr)->addr[2] ^ ip_2_ip6(addr)->addr[0];
	return &buckets[(hash * 0x9e3779b1u) >> 20];
}

struct neighbour *neighbour_find(const ip_addr_t *addr)
{
	struct neighbour *n = *bucket_of(addr);

	while (n && (IP_IS_V6(&n->addr) != IP_IS_V6(addr) || !ip_addr_cmp(&n->addr, addr)))
		n = n->chain;
	return n;
}

static void leave_list(struct neighbour *n)
{
	*(n->older ? &n->older->newer : &n->list->oldest) = n->newer;
	*(n->newer ? &n->newer->older : &n->list->newest) = n->older;
}

static void enter_list(struct neighbour *n, struct list *list)
{
	n->list = list;
	n->newer = NULL;
	n->older = list->newest;
	*(n->older ? &n->older->newer : &list->oldest) = n;
	list->newest = n;
}

void neighbour_drop_first(struct neighbour *n)
{
	struct waiting *w = n->queue.first;

	n->queue.first = w->next;
	n->queue.bytes -= w->p->tot_len;
	waiting_bytes -= w->p->tot_len;
	pbuf_free(w->p);
	lwip_heap_free(w);
}

void neighbour_forget(struct neighbour *n)
{
	struct neighbour **at = bucket_of(&n->addr);

	while (n->queue.first)
		neighbour_drop_first(n);
	while (*at != n)
		at = &(*at)->chain;
	*at = n->chain;
	leave_list(n);
	n->chain = unused;
	unused = n;
}

struct neighbour *neighbour_make(const ip_addr_t *addr)
{
	struct neighbour *n, **at = bucket_of(addr);

	if (!unused && made == NEIGHBOURS_MAX) {
		n = idle.oldest ? idle.oldest : carrying.oldest;
		if (n->list == &carrying && sys_now() - n->used_ms < BUSY_MS)
			return NULL;
		neighbour_forget(n);
	}
	n = unused;
	if (n)
		unused = n->chain;
	else
		n = &all[made++];
	*n = (struct neighbour){ .addr = *addr, .state = ASKING, .since_ms = sys_now(), .chain = *at };
	*at = n;
	enter_list(n, &idle);
	return n;
}

void neighbour_set_state(struct neighbour *n, enum neighbour_state state)
{
	n->state = (uint8_t)state;
	n->since_ms = sys_now();
	n->asks = 0;
}

void neighbour_use(struct neighbour *n)
{
	if (n->list == &carrying && sys_now() - n->used_ms < 1000)
		return;
	leave_list(n);
	enter_list(n, &carrying);
	n->used_ms = sys_now();
	if (n->state == REACHABLE && sys_now() - n->since_ms >= REACHABLE_MS)
		neighbour_set_state(n, STALE);
	if (n->state == STALE)
		neighbour_set_state(n, DELAYED);
}

err_t neighbour_keep(struct neighbour *n, struct pbuf *p)
{
	struct waiting *w;

	while (n->queue.first && n->queue.bytes + p->tot_len > WAITING_EACH)
		neighbour_drop_first(n);
	for (struct neighbour *old = idle.oldest; old && waiting_bytes + p->tot_len > WAITING_MAX; old = old->newer)
		while (old != n && old->queue.first)
			neighbour_drop_first(old);
	while (n->queue.first && waiting_bytes + p->tot_len > WAITING_MAX)
		neighbour_drop_first(n);
	w = lwip_heap_alloc(sizeof(*w));
	if (!w)
		return ERR_MEM;
	w->next = NULL;
	w->p = pbuf_clone(PBUF_LINK, PBUF_RAM, p);
	if (!w->p) {
		lwip_heap_free(w);
		return ERR_MEM;
	}
	*(n->queue.first ? &n->queue.last->next : &n->queue.first) = w;
	n->queue.last = w;
	n->queue.bytes += p->tot_len;
	waiting_bytes += p->tot_len;
	return ERR_OK;
}

static void each(struct netif *netif, struct list *list, neighbour_fn *fn)
{
	for (struct neighbour *n = list->oldest, *next; n; n = next) {
		next = n->newer;
		fn(netif, n);
	}
}

void neighbour_each(struct netif *netif, neighbour_fn *fn)
{
	each(netif, &idle, fn);
	each(netif, &carrying, fn);
}
