/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Receive-side scaling: the hash by which a NIC, or the plan, gives each flow to a worker. */
#ifndef LSTACK_RSS_H
#define LSTACK_RSS_H

#include <stdint.h>

#include <lwip/ip_addr.h>

struct rss;

/* The hash tables of a key of GZ_RSS_KEY_SIZE bytes. NULL: no memory. */
struct rss *rss_create(const uint8_t *key);

/* The RSS hash of an incoming packet: Toeplitz over both addresses and, for TCP and UDP, both ports. As DPDK's rte_softrss. */
uint32_t rss_hash(const struct rss *rss, const ip_addr_t *remote, uint16_t remote_port, const ip_addr_t *local,
                  uint16_t local_port);

/* The same over the addresses alone: fragments have no ports. */
uint32_t rss_hash_addresses(const struct rss *rss, const ip_addr_t *remote, const ip_addr_t *local);

#endif
