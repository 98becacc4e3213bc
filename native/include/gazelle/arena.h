/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The arena: one memfd per application and worker, with the table of sockets and the blocks their FIFOs use. Processes that
 * descend from one attached program by fork share it; no other program ever sees it.
 */
#ifndef GAZELLE_ARENA_H
#define GAZELLE_ARENA_H

#include <stdint.h>

#include <gazelle/bell.h>
#include <gazelle/fifo.h>

#define GZ_ARENA_MAGIC 0x616e657261617a67ull
#define GZ_SOCKS_MAX GZ_BELL_SOCKS /* socket 0 is never a socket: its bit in a bell means "request ring" */
#define GZ_ARENA_PAGE 4096u
#define GZ_BLOCK_ORDER_MIN 12u /* 4 KiB */
#define GZ_BLOCK_ORDER_MAX 20u /* 1 MiB */

/* A block packed in 32 bits: page number in the arena << 5 | order; 0 = none. An arena is at most 2^27 pages = 512 GiB. */
#define GZ_BLOCK(page, order) (((uint32_t)(page) << 5) | (uint32_t)(order))
#define GZ_BLOCK_OFFSET(b) ((uint64_t)((b) >> 5) * GZ_ARENA_PAGE)
#define GZ_BLOCK_SIZE(b) ((b) ? 1u << ((b)&31u) : 0u)

/*
 * Flags of the worker's end. OPEN is set from the moment the entry means something to the application until the worker has
 * forgotten it; all others are levels that stay.
 */
#define GZ_WORKER_OPEN 0x001u       /* in use */
#define GZ_WORKER_LISTENING 0x002u  /* a listener; aux[] is its accept queue (struct gz_accept_queue in accept_block) */
#define GZ_WORKER_CONNECTED 0x004u  /* handshake complete; stays set after a reset */
#define GZ_WORKER_FIN 0x008u        /* the peer sends no more: EOF once the FIFO is empty */
#define GZ_WORKER_DEAD 0x010u       /* connection over by reset, time-out or failed connect: `error` says why */
#define GZ_WORKER_WANT_SPACE 0x020u /* data waits for room: ring me when you have consumed */
#define GZ_WORKER_FIN_ACKED 0x040u  /* all we sent, our FIN included, was acknowledged */

/* Flags of the application's end; about the connection, so shared by all processes that hold it. No bit
 * of a worker's end but WANT_SPACE, which means the same: in a pair one end is both. */
#define GZ_APP_SHUT_WR 0x100u /* FIN after the FIFO's last byte */
#define GZ_APP_SHUT_RD 0x200u
#define GZ_APP_ABORT 0x400u      /* SO_LINGER with 0: RST instead of FIN when the last process lets go */
#define GZ_APP_WANT_SPACE 0x020u /* ring me when the tx FIFO is at least half empty */
#define GZ_APP_GROW 0x800u       /* give me a bigger tx block: I write nothing until in_block changes or GROW_SEEN */
#define GZ_APP_OPTIONS 0x1000u   /* options[] below have changed */
#define GZ_APP_EXCLUSIVE \
	0x2000u /* a listener: of those who sleep, a connection wakes one (EPOLLEXCLUSIVE); all are rung */
#define GZ_APP_NONBLOCK 0x4000u /* O_NONBLOCK, for the processes that share the socket; nobody else looks */

/* Socket options the stack acts on; the application writes them, then sets GZ_APP_OPTIONS and rings. */
struct gz_options {
	_Atomic uint32_t nodelay;   /* TCP_NODELAY */
	_Atomic uint32_t cork;      /* TCP_CORK */
	_Atomic uint32_t keepalive; /* SO_KEEPALIVE */
	_Atomic uint32_t keepidle_s, keepintvl_s, keepcnt;
	_Atomic uint32_t user_timeout_ms;
	_Atomic uint32_t maxseg;
	_Atomic uint32_t rcvbuf; /* bytes; 0 = default */
	_Atomic uint32_t sndbuf;
	_Atomic uint32_t tos;
	_Atomic uint32_t ttl;
	_Atomic uint32_t defer_accept_s; /* TCP_DEFER_ACCEPT; of a listener */
	uint32_t pad[3];
};
_Static_assert(sizeof(struct gz_options) == 64, "options are one line");

/* What a socket is. The worker writes it before it sets OPEN or pushes to an accept queue, and never again. */
struct gz_name {
	uint8_t local_addr[16];
	uint8_t peer_addr[16];
	uint16_t local_port, peer_port;
	uint8_t family; /* AF_INET or AF_INET6 */
	uint8_t type;   /* SOCK_STREAM or SOCK_DGRAM */
	uint16_t mss;
	uint32_t listener; /* accepted sockets: the listener's entry */
	uint32_t serial;   /* differs each time the entry is used again */
	uint32_t since_ms; /* of a pair: CLOCK_MONOTONIC when it was made */
	uint32_t pad[3];
};
_Static_assert(sizeof(struct gz_name) == 64, "a name is one line");

/*
 * One socket. FIFO towards the application: worker.out_head, app.in_tail, block worker.out_block.
 * FIFO towards the worker: app.out_head, worker.in_tail (acknowledged by the peer), block worker.in_block; the worker alone
 * chooses blocks. It changes in_block only while the application has set GZ_APP_GROW and the FIFO is empty, and answers by
 * setting worker.aux[GZ_AUX_GROW_SEEN] to app.aux[GZ_AUX_GROW_SERIAL], with or without a bigger block.
 */
struct gz_sock {
	struct gz_end worker;      /* worker writes */
	struct gz_end app;         /* application writes */
	struct gz_options options; /* application writes */
	struct gz_name name;       /* worker writes */
};
_Static_assert(sizeof(struct gz_sock) == 256, "a socket entry is four lines");

/* app.aux: serial of the request, bytes wished; pid of the one process of those that share the socket that writes, or 0 */
enum {
	GZ_AUX_GROW_SERIAL = 0,
	GZ_AUX_GROW_SIZE = 1,
	GZ_AUX_TRACED = 2,   /* the GZ_AUX_TRACE that the next two are about; written after them */
	GZ_AUX_READ_NS = 3,  /* CLOCK_MONOTONIC, its low 32 bits: the application has read */
	GZ_AUX_WRITE_NS = 4, /* it writes */
	GZ_AUX_WRITER = 8
};
enum {
	GZ_AUX_GROW_SEEN = 0,
	GZ_AUX_ACCEPT_BLOCK = 1,
	GZ_AUX_RTT_US = 2,
	GZ_AUX_CWND = 3,
	GZ_AUX_RETRANS = 4,
	GZ_AUX_READY = 7, /* gz_stamp() of the first ring that was not taken; the peer's end of a pair has it, too */
	GZ_AUX_TRACE = 5  /* differs each time the next read is to be timed, and the write after it */
};                        /* worker.aux */

/*
 * aux of a datagram socket. ICMP errors about what it sent: those that end up in SO_ERROR of a connected socket, with
 * worker.error, are counted in worker.aux[GZ_AUX_ERRORS]; the application answers by the same number in app.aux once one
 * has been reported, so that of several only the last is, as with the kernel's own single slot.
 */
enum {
	GZ_AUX_ERRORS = 0,     /* both */
	GZ_AUX_WRITE_LOCK = 8, /* app: 1 = one of the processes that share the FIFO writes */
};

/*
 * Accept queue of a listener, in the block worker.aux[GZ_AUX_ACCEPT_BLOCK]. One producer (the worker), many consumers
 * (threads and forked processes). A pop is: t = tail; if t == head, empty; v = slot[t & mask]; cas(tail, t, t+1).
 */
struct gz_accept_queue {
	_Alignas(64) _Atomic uint32_t head;   /* worker writes */
	_Alignas(64) _Atomic uint32_t tail;   /* applications, by cas */
	uint32_t mask;                        /* worker writes once; slots - 1 */
	_Alignas(64) _Atomic uint32_t slot[]; /* worker writes: socket number */
};
#define GZ_ACCEPT_SLOTS 4096u /* at most */

/*
 * A datagram in a FIFO of a SOCK_DGRAM socket: this header, then `len` bytes, then padding to GZ_DATAGRAM_ALIGN. Written and
 * consumed whole. Towards the application addr:port is the sender, towards the worker the destination; `own` is the other
 * end, by its slot in the group page.
 */
struct gz_datagram {
	uint16_t len;
	uint16_t port;
	uint8_t flags; /* GZ_DATAGRAM_BROADCAST */
	uint8_t hops;  /* its TTL or hop limit; towards the worker 0 = the usual one */
	uint8_t tos;   /* its TOS or traffic class */
	uint8_t own;   /* 0: towards the worker any; towards the application everybody, or an address that is gone */
	uint8_t addr[16];
};
_Static_assert(sizeof(struct gz_datagram) == 24, "no holes");
#define GZ_DATAGRAM_BROADCAST 1u /* it was sent to everybody, not to the stack's address */
#define GZ_DATAGRAM_ALIGN 8u
#define GZ_DATAGRAM_MAX 65507u
#define GZ_DATAGRAM_MAX6 65487u /* over IPv6, of which lwIP makes one packet of 64 KiB with its header at most */
#define GZ_DATAGRAM_SPACE(len) \
	(((uint32_t)sizeof(struct gz_datagram) + (len) + GZ_DATAGRAM_ALIGN - 1) & ~(GZ_DATAGRAM_ALIGN - 1))

struct gz_arena {
	uint64_t magic;
	uint32_t abi_version;
	uint32_t socks; /* GZ_SOCKS_MAX */
	uint64_t size;  /* bytes, sparse */
	uint8_t pad[40];
	_Alignas(GZ_ARENA_PAGE) struct gz_sock sock[GZ_SOCKS_MAX];
	/* blocks follow, page-aligned */
};

#endif
