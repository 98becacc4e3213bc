/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * One socket of an application, by its number in the arena: a TCP connection (stream.h), a listener's own entry (listener.h)
 * or a datagram socket (dgram.h). Here is what it consists of, and its life, which is the same for all of them.
 */
#ifndef LSTACK_CONN_H
#define LSTACK_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include <lwip/tcp.h>

#include <gazelle/arena.h>

struct ahead;
struct arena;
struct conn;
struct listener_member;
struct sockets;
struct trace;
struct vouch;

/* What the listener of a deferred connection (TCP_DEFER_ACCEPT) hears of it: its first bytes, or its FIN; its end. */
struct conn_deferral {
	void (*ready)(struct conn *conn);
	void (*broken)(struct conn *conn);
};

struct conn {
	struct sockets *sockets;
	struct arena *arena;
	struct gz_sock *shared;
	struct tcp_pcb *pcb; /* NULL once lwIP has forgotten it */
	struct udp_pcb *udp; /* this number is a datagram socket (dgram.c), not a connection */
	struct conn *retry_next;
	struct listener_member *member;         /* it waits in this listener's accept queue; NULL otherwise */
	struct conn *queued_next;               /* member->queued, or member->deferred */
	struct conn *orphan_prev, *orphan_next; /* sockets->orphans (orphan.h) */
	const struct conn_deferral *deferral;   /* it is in member->deferred, not in its queue; NULL otherwise */
	struct listener_member *listens;        /* this number is a listener, not a connection */
	struct vouch *vouch;                    /* of a listener or datagram socket: whose its port is */
	uint32_t n;                             /* its number in the arena */
	uint32_t bucket;
	uint32_t flow;       /* flows.h */
	struct trace *trace; /* trace.c; NULL until it has been timed once */
	uint32_t charges;    /* to arena->user (quota.h) */
	uint32_t holders;    /* processes */
	uint32_t flags;      /* GZ_WORKER_*: our copy of shared->worker.flags */
	uint32_t accept_at;  /* position in the accept queue */
	uint64_t popped_ns;  /* when it was first seen popped but unclaimed; 0 = not */
	uint64_t deferred_until_ns;
	uint64_t since_ns;    /* when it was made */
	uint64_t progress_ns; /* of an orphan: when it last was a byte nearer to its end */
	uint64_t silent_ns; /* TCP_USER_TIMEOUT: since then the peer has acknowledged none of what was sent again; 0 = it has */
	/* towards the application */
	struct pbuf *held;   /* received, no room yet */
	struct ahead *ahead; /* received, but not yet what comes before it: it lies in the FIFO already; NULL: nothing */
	uint32_t rx_follows; /* of that, what the segment that lwIP is about to deliver has made contiguous */
	uint32_t rx_block, rx_base, rx_head;
	uint32_t rx_tail; /* app.in_tail as last seen; bytes up to here were given back to lwIP's window */
	uint32_t rx_size; /* bytes the peer was promised at most: the window's ceiling */
	uint32_t rx_peak; /* highest fill since the FIFO was last empty */
	uint64_t bytes_received;
	/* towards the network */
	uint32_t tx_block, tx_base;
	uint32_t tx_given; /* app.out_head up to which lwIP has it */
	uint32_t tx_acked; /* worker.in_tail */
	uint32_t tx_end;   /* of an orphan: the last byte its program wrote; its word was taken once, when it let go */
	uint64_t bytes_acked;
	uint32_t grow_serial;
	uint32_t rtt_us;      /* smoothed */
	uint64_t rtt_from_ns; /* a measurement is under way since then; 0 = none */
	bool fin_seen, fin_given, orphan, connecting, in_retry;
	bool waits;   /* an orphan in sockets->orphans */
	bool crowded; /* of a datagram socket: others have had its port, too */
	uint64_t binding; /* of a datagram socket: which of all it was; of several with one port the last one bound goes first */
};

/* The entry of number n. NULL: no memory, or its user has as many sockets as one may. */
struct conn *conn_create(struct sockets *sockets, struct arena *arena, uint32_t n);
/* There is not even memory for a struct conn: number n of the application's stock ends here, with `error`. */
void conn_refuse(struct arena *arena, uint32_t n, int error);
/* What it was to become cannot be: the application hears `error`. It stays until its last holder lets go of it. */
void conn_fail(struct conn *conn, int error);
/* Frees the entry and its number. No pcb, no holder, no reference may be left. */
void conn_destroy(struct conn *conn);

/* Publishes GZ_WORKER_* flags; release order: what they announce is written. */
void conn_set_flags(struct conn *conn, uint32_t flags);
/* Rings the applications that wait for this socket. */
void conn_notify(struct conn *conn);
/* An application wrote what cannot be. */
void conn_hostile(struct conn *conn, const char *why);
/* Work that must not be done inside an lwIP callback, or that failed for want of memory: next turn. */
void conn_later(struct conn *conn);

#endif
