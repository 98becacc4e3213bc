/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The table of neighbours, and the packets that wait for their hardware addresses. */
#ifndef LSTACK_NEIGHBOUR_TABLE_H
#define LSTACK_NEIGHBOUR_TABLE_H

#include <stdint.h>

#include <lwip/err.h>
#include <lwip/ip_addr.h>
#include <lwip/prot/ethernet.h>

struct netif;
struct pbuf;

#define NEIGHBOURS_MAX 4096u
#define REACHABLE_MS 30000u /* so long an answer is worth something */

enum neighbour_state {
	ASKING, /* no hardware address; packets may wait */
	REACHABLE,
	STALE,   /* it has one that nobody has confirmed lately */
	DELAYED, /* and is in use: will be probed */
	PROBING
};

struct neighbour {
	struct neighbour *chain; /* of its bucket, or the next free one */
	struct list *list;
	struct neighbour *older, *newer; /* in its list */
	ip_addr_t addr;
	uint8_t mac[ETH_HWADDR_LEN];
	uint8_t state, asks;
	uint32_t since_ms;   /* its state */
	uint32_t changed_ms; /* its hardware address */
	uint32_t used_ms;    /* something was sent to it; also the order of the list */
	struct {
		struct waiting *first, *last;
		uint32_t bytes;
	} queue;
};

struct waiting {
	struct waiting *next;
	struct pbuf *p;
};

/* NULL: it is not known. */
struct neighbour *neighbour_find(const ip_addr_t *addr);

/* A new entry, for which the oldest one that carries no traffic makes way. NULL: all carry some. */
struct neighbour *neighbour_make(const ip_addr_t *addr);
void neighbour_forget(struct neighbour *n);

void neighbour_set_state(struct neighbour *n, enum neighbour_state state);

/* Something is sent to it. The list's order is good to a second. */
void neighbour_use(struct neighbour *n);

/* Has a packet wait for its hardware address: a copy, for the sender may hold the packet, move it, or have it in a memory of an application's. */
err_t neighbour_keep(struct neighbour *n, struct pbuf *p);
/* Frees the packet that has waited longest; there is one. */
void neighbour_drop_first(struct neighbour *n);

/* Calls fn for each, which may forget the one it is called for. */
typedef void neighbour_fn(struct netif *netif, struct neighbour *n);
void neighbour_each(struct netif *netif, neighbour_fn *fn);

#endif
