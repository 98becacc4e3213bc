/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What a datagram socket has beyond its struct sock. */
#ifndef SHIM_DGRAM_SOCK_H
#define SHIM_DGRAM_SOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/route.h"
#include "core/sock.h"
#include "worker/entries.h"

/* What sending and receiving must know. */
struct dgram_options {
	uint32_t rcvbuf; /* 0 = the program has not set it */
	uint32_t sndbuf;
	uint8_t tos, ttl;     /* of what goes over IPv4 */
	uint8_t tclass, hops; /* over IPv6 */
	uint8_t told;         /* enum dgram_told */
	bool broadcast;       /* SO_BROADCAST */
	bool whole, whole6;   /* IP_MTU_DISCOVER, IPV6_MTU_DISCOVER ask for no fragments */
};

/* What a program wants to be told of each datagram: IP_PKTINFO, IP_RECVTTL, IP_RECVTOS and their kin of IPv6. */
enum dgram_told {
	TOLD_PKTINFO = 1,
	TOLD_TTL = 2,
	TOLD_TOS = 4,
	TOLD_PKTINFO6 = 8,
	TOLD_HOPLIMIT = 16,
	TOLD_TCLASS = 32
};

/* What a DGRAM socket has beyond its struct sock. */
struct dgram {
	struct entries entries; /* first; s->entries points to it */
	struct endpoint peer;   /* port 0 = not connected; both locks to change */
	uint8_t peer_own;       /* the slot of the address it leaves by towards the peer; 0: the first */
	_Atomic uint32_t shut;  /* 1 << SHUT_RD | 1 << SHUT_WR */
	uint32_t turn;          /* where the next read looks first; rx */
	uint32_t tx_slot;       /* the worker that sends; tx */
	struct dgram_options options;
	struct endpoint asked; /* the destination route_connect was asked about last, and what it said; tx */
	enum route route;
	uint8_t own; /* and the slot of the address it leaves by */
};

static inline struct dgram *dgram_of(struct sock *s)
{
	return (struct dgram *)s->entries;
}

#endif
