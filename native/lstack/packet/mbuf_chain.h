/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Fills a chain of mbufs from its start to its end, one more mbuf whenever the last one is full. */
#ifndef LSTACK_MBUF_CHAIN_H
#define LSTACK_MBUF_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;

struct mbuf_chain {
	struct rte_mempool *pool;
	struct rte_mbuf *head, *last;
};

/* A chain of one empty mbuf. False: the pool is empty. */
bool mbuf_chain_begin(struct mbuf_chain *chain, struct rte_mempool *pool);

/*
 * At most `len` bytes behind what the chain holds, which count as written: the place, and how many in *n. NULL: the pool is
 * empty, and the chain is freed.
 */
void *mbuf_chain_room(struct mbuf_chain *chain, uint32_t len, uint32_t *n);

/* Copies bytes there. False as above. */
bool mbuf_chain_append(struct mbuf_chain *chain, const void *bytes, uint32_t len);

#endif
