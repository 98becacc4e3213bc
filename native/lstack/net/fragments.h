/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Fragments of IP datagrams, of both families, that wait for the rest. */
#ifndef LSTACK_FRAGMENTS_H
#define LSTACK_FRAGMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include <lwip/ip_addr.h>

struct rte_mbuf;
struct rte_mempool;

/* Memory of all fragments that wait, however many peers send them. The oldest datagram goes first. */
#define FRAGMENTS_BYTES_MAX (4u << 20)

/*
 * Takes one fragment, a frame whose headers frame_parse has seen, and copies what it keeps. Returns the whole datagram as a
 * frame from the pool once it is complete, with nothing known of its checksum; NULL until then, or if it is malformed.
 */
struct rte_mbuf *fragments_join(struct rte_mempool *pool, struct rte_mbuf *m, uint32_t now_ms);

/* Gives up what has waited too long. Once a second. */
void fragments_timer(uint32_t now_ms);

/* Bytes that wait: for tests. */
uint32_t fragments_waiting(void);

#endif
