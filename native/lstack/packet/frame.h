/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What steering needs to know of a frame, read once from its headers. Nothing in a frame is trusted. */
#ifndef LSTACK_FRAME_H
#define LSTACK_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include <lwip/ip_addr.h>

struct rte_mbuf;

enum frame_kind {
	FRAME_BAD,   /* malformed, or too short for what it says */
	FRAME_OTHER, /* for lwIP of whichever worker has it */
	FRAME_ARP,
	FRAME_NEIGHBOR, /* a neighbour advertisement */
	FRAME_TCP,
	FRAME_UDP,
	FRAME_FRAGMENT,  /* of an IP datagram */
	FRAME_ICMP_ERROR /* about a TCP segment or a UDP datagram of ours: addresses and ports are those of the flow */
};

struct frame {
	enum frame_kind kind;
	ip_addr_t local, remote; /* ours is the destination (of an ICMP error: the inner source) */
	uint16_t local_port, remote_port;
	uint8_t tcp_flags;
	bool udp;        /* of an ICMP error: about a datagram */
	uint32_t seq;    /* of an ICMP error about a segment: its sequence number */
	uint32_t mtu;    /* of an ICMP error that says "too big": what the path takes; else 0 */
	uint32_t l3;     /* offset of the IP header */
	uint32_t l4;     /* offset of the transport header */
	uint32_t l4_len; /* bytes of transport header and data, by the IP header */
};

/* Reads the headers, which must lie in the first mbuf. */
void frame_parse(const struct rte_mbuf *m, struct frame *frame);

/*
 * True if a TCP or UDP frame's checksum is right. With `partial`, also if it is what a local kernel leaves when it expects
 * its device to finish it: the pseudo-header's sum.
 */
bool frame_checksum_ok(const struct rte_mbuf *m, const struct frame *frame, bool partial);

/* Writes the checksum of a UDP frame that has one; its sender may have left that to the device. */
void frame_write_checksum(struct rte_mbuf *m, const struct frame *frame);

#endif
