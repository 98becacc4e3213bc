/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The worker's packet buffers: one pool, sized by the plan, every mbuf with room for the pbuf that lends it to lwIP. */
#ifndef LSTACK_MEMPOOL_H
#define LSTACK_MEMPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include <lwip/pbuf.h>

struct gz_group_page;
struct gz_worker_plan;
struct rte_mbuf;
struct rte_mempool;

/* The mbuf's private area: while lwIP holds the mbuf, it knows it by this pbuf. */
struct mbuf_private {
	struct pbuf_custom pbuf;
	struct rte_mbuf *mbuf;
};

/* Bytes the pool of this plan takes. Pure. */
uint64_t mempool_bytes(const struct gz_group_page *group, const struct gz_worker_plan *plan);

/*
 * Makes the pool named in the plan. Without hugepages its memory is one mapping of our own. After eal_open. The pool lives
 * as long as the process. 0 or -errno.
 */
int mempool_open(const struct gz_group_page *group, const struct gz_worker_plan *plan, struct rte_mempool **pool);

/* True if all of a pool is DPDK's own memory, which its drivers map for their devices; a mapping of our own is not. */
bool mempool_is_dpdks(struct rte_mempool *pool);

#endif
