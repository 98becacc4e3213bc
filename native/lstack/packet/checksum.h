/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The Internet checksum, by 64-bit words. Sums are in network byte order as they lie in memory, folded, not inverted. */
#ifndef LSTACK_CHECKSUM_H
#define LSTACK_CHECKSUM_H

#include <stdint.h>

#include <arch/cc.h>

struct rte_mbuf;

static inline uint16_t checksum_fold(uint64_t sum)
{
	sum = (sum & 0xffffffffu) + (sum >> 32);
	sum = (sum & 0xffffu) + (sum >> 16);
	sum = (sum & 0xffffu) + (sum >> 16);
	sum = (sum & 0xffffu) + (sum >> 16);
	return (uint16_t)sum;
}

/* The pseudo-header's sum; `ip` points to an IPv4 or IPv6 header, `len` is the length of header and data above it. */
uint16_t checksum_pseudo(const uint8_t *ip, uint8_t protocol, uint32_t len);

/* Sum over `len` bytes of an mbuf chain from offset `off`. The chain is that long. */
uint16_t checksum_mbuf(const struct rte_mbuf *m, uint32_t off, uint32_t len);

#endif
