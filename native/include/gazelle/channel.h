/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The channel: one memfd per attached process and worker, with bells, the request ring and the stock of free sockets. */
#ifndef GAZELLE_CHANNEL_H
#define GAZELLE_CHANNEL_H

#include <stdint.h>

#include <gazelle/arena.h>
#include <gazelle/bell.h>
#include <gazelle/kernel_reason.h>

#define GZ_CHANNEL_MAGIC 0x6c6e6e6168637a67ull
#define GZ_EVENT_QUEUES 64u /* per process: one per epoll instance and per thread that blocks; more share by number */
#define GZ_REQUESTS 256u    /* slots of the request ring, a power of two */
#define GZ_STOCK 256u       /* slots of the stock ring */

enum gz_request_op {
	GZ_REQUEST_LISTEN =
		1, /* socket n listens on addr:port with `arg` = backlog; done when n is LISTENING or DEAD. VOUCH first */
	GZ_REQUEST_CONNECT = 2, /* socket n connects from addr:port (port 0: any, else VOUCH first) to peer; done when CONNECTED
				 * or DEAD. Family AF_UNSPEC: to nowhere, so that it ends as one whose connection was broken off */
	GZ_REQUEST_BACKLOG = 3, /* listener n: listen() again with another backlog */
	GZ_REQUEST_CLAIM = 4,   /* socket n, popped from an accept queue, now has an fd in this process */
	GZ_REQUEST_RELEASE = 5, /* this process lets go of socket n; the last one closes it (RST if data is unread) */
	GZ_REQUEST_BIND = 6, /* datagram socket n takes what comes to addr:port (VOUCH first), from peer only if peer_port is not
			      * 0; again to change the peer. Done when n is CONNECTED (or DEAD). */
	GZ_REQUEST_LOOK = 7 /* done when the ports of processes that had ended before it was posted are free; no socket */
};

/*
 * One request: a line, so that the producer never shares it. Requests of one process are carried out in their order; after
 * posting, the application rings bit 0 of to_worker.
 */
struct gz_request {
	uint32_t op;
	uint32_t sock; /* a number taken from the stock */
	uint8_t addr[16];
	uint8_t peer[16];
	uint16_t port, peer_port;
	uint32_t arg;
	uint8_t family;
	uint8_t type;
	uint8_t v6only;
	uint8_t own; /* CONNECT of a socket without an address: the slot of the stack's that it leaves by; 0: any */
	uint32_t pad[3];
};
_Static_assert(sizeof(struct gz_request) == 64, "a request is one line");

struct gz_request_ring {
	_Alignas(64) _Atomic uint32_t head; /* application writes (under a lock of its own process) */
	_Alignas(64) _Atomic uint32_t tail; /* worker writes */
	_Alignas(64) struct gz_request slot[GZ_REQUESTS];
};

/* Free socket numbers the worker has granted to this process. Popped as an accept queue is. */
struct gz_stock {
	_Alignas(64) _Atomic uint32_t head;           /* worker writes */
	_Alignas(64) _Atomic uint32_t tail;           /* application, by cas */
	_Alignas(64) _Atomic uint32_t slot[GZ_STOCK]; /* worker writes */
};

/*
 * `interest[n]`: the event queues of this process to ring when socket n changes, one bit each; the application sets it
 * before it looks at the socket's level, the worker reads it after it has changed the level, with a fence on both sides.
 */
struct gz_channel {
	uint64_t magic;
	uint32_t abi_version;
	uint32_t queue_id;
	uint32_t attach_id;
	uint32_t pad[11];
	_Alignas(64) _Atomic uint32_t kernel_sockets[GZ_KERNEL_REASONS]; /* application writes: gauge by reason */
	_Atomic uint32_t pair_sockets;                                   /* application writes: gauge */
	_Atomic uint32_t pairs_refused; /* application writes: connections of this host that said they came from elsewhere */
	struct gz_request_ring requests;
	struct gz_stock stock;
	struct gz_bell to_worker;               /* application rings; `asleep` unused: see worker_page.asleep */
	struct gz_bell to_app[GZ_EVENT_QUEUES]; /* worker rings; application declares itself asleep in each */
	_Alignas(64) _Atomic uint64_t interest[GZ_SOCKS_MAX];
};

#endif
