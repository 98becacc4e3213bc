/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Which path serves a socket: decided once, at listen or connect, from its addresses and the group page alone. */
#ifndef SHIM_ROUTE_H
#define SHIM_ROUTE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <gazelle/kernel_reason.h>

/* An address and port as the ABI has them: IPv4 as ::ffff:a.b.c.d, the port host-endian. */
struct endpoint {
	uint8_t addr[16];
	uint16_t port;
	uint32_t scope; /* of a link-local address, the interface that the program has named; 0: none, or the stack's */
};

enum route {
	ROUTE_KERNEL = 0, /* `why` says the reason */
	ROUTE_STACK,
	ROUTE_BOTH /* listeners that the kernel and the stack serve at once */
};

/* False: not an IPv4 or IPv6 address, or too short. */
bool endpoint_from(const struct sockaddr *sa, socklen_t len, struct endpoint *out);

/* Writes as much of the sockaddr (IPv4-mapped for AF_INET6) as fits in *len, and its full length to *len, as the kernel does. */
void endpoint_to(const struct endpoint *ep, int family, struct sockaddr *sa, socklen_t *len);

static inline uint32_t endpoint_ip4_be(const struct endpoint *ep)
{
	uint32_t be;

	__builtin_memcpy(&be, ep->addr + 12, sizeof(be));
	return be;
}

/* True if the stack owns this address. Unless it is shared, a placeholder may bind it although no interface of the kernel has it. */
bool route_is_stack(const struct endpoint *local);

/* True if the stack's addresses are the machine's own: beside the kernel, by an uplink. */
bool route_is_shared(void);

/* The slot of an address of the stack's in the group page; 0: it is none. */
uint8_t route_own_slot(const struct endpoint *local);

/* The stack's own address in a slot, else the first of the family of `towards`; the port stays. */
void route_own(uint8_t slot, const struct endpoint *towards, struct endpoint *out);

/* Index of the device the stack's packets use, as IP_PKTINFO tells it; 0: it has none in this network namespace. */
int route_ifindex(void);

/* True for the broadcast addresses: the limited one and that of the stack's subnet. */
bool route_is_broadcast(const struct endpoint *to);

/* A socket bound to `local` is about to listen. */
enum route route_listen(const struct endpoint *local, enum gz_kernel_reason *why);

/*
 * A socket bound to `local` (NULL: not bound) is about to connect. *own: the slot of the address it is going to leave by, if the
 * stack serves it; 0: the first.
 */
enum route route_connect(const struct endpoint *local, const struct endpoint *to, uint8_t *own, enum gz_kernel_reason *why);

#endif
