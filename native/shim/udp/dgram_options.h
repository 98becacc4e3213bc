/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Options of datagram sockets. The placeholder holds their values, checked, bounded and doubled as the kernel does it; what
 * the stack acts on is read from there and told to the workers. What the stack cannot do sends a socket whose path is still
 * open to the kernel for good, and is refused with ENOPROTOOPT on one that is on the stack.
 */
#ifndef SHIM_DGRAM_OPTIONS_H
#define SHIM_DGRAM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct endpoint;
struct sock;

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

/* Reads them from the placeholder. The caller tells the workers. Both locks held. */
void dgram_options_load(struct sock *s, int fd);

/* The largest IP packet on the way there. */
uint32_t dgram_mtu(const struct endpoint *to);

/* setsockopt and getsockopt of a FRESH or DGRAM datagram socket. 0 or -errno. No locks held. */
int dgram_option_set(struct sock *s, int fd, int level, int name, const void *value, socklen_t len);
int dgram_option_get(struct sock *s, int fd, int level, int name, void *value, socklen_t *len);

#endif
