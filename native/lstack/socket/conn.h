/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * One TCP connection: lwIP's pcb on one side, a socket entry with two FIFOs on the other. Received bytes are copied once,
 * from mbufs into the rx FIFO; sent bytes are not copied at all: lwIP refers to the tx FIFO until they are acknowledged.
 * A connection outlives its last holder while it still has bytes to deliver.
 */
#ifndef LSTACK_CONN_H
#define LSTACK_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include <lwip/tcp.h>

#include <gazelle/arena.h>
#include <gazelle/channel.h>
#include <gazelle/group_page.h>

struct ahead;
struct app;
struct apps;
struct arena;
struct listener_member;
struct trace;
struct vouch;

struct conn {
	struct apps *apps;
	struct arena *arena;
	struct gz_sock *shared;
	struct tcp_pcb *pcb; /* NULL once lwIP has forgotten it */
	struct udp_pcb *udp; /* this number is a datagram socket (dgram.c), not a connection */
	struct conn *retry_next;
	struct listener_member *member;         /* it waits in this listener's accept queue; NULL otherwise */
	struct conn *queued_next;               /* member->queued, or member->deferred */
	struct conn *orphan_prev, *orphan_next; /* apps->orphans (orphan.h) */
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
	uint64_t progress_ns; /* of an orphan: when it last was a byte nearer to its end */
	/* towards the application */
	struct pbuf *held;   /* received, no room yet */
	struct ahead *ahead; /* received, but not yet what comes before it: it lies in the FIFO already; NULL: nothing */
	uint32_t rx_follows; /* of that, what the segment that lwIP is about to deliver has made contiguous */
	uint32_t rx_block, rx_base, rx_head;
	uint32_t rx_tail; /* app.in_tail as last seen; bytes up to here were given back to lwIP's window */
	uint32_t rx_size; /* bytes the peer was promised at most: the window's ceiling */
	uint32_t rx_peak; /* highest fill since the FIFO was last empty */
	/* towards the network */
	uint32_t tx_block, tx_base;
	uint32_t tx_given; /* app.out_head up to which lwIP has it */
	uint32_t tx_acked; /* worker.in_tail */
	uint32_t tx_end;   /* of an orphan: the last byte its program wrote; its word was taken once, when it let go */
	uint32_t grow_serial;
	uint32_t rtt_us;      /* smoothed */
	uint64_t rtt_from_ns; /* a measurement is under way since then; 0 = none */
	bool fin_seen, fin_given, orphan, connecting, in_retry;
	bool deferred; /* TCP_DEFER_ACCEPT: in member->deferred, not in its queue, until the first byte comes */
	bool waits;    /* an orphan in apps->orphans */
	bool crowded;  /* of a datagram socket: others have had its port, too */
	uint64_t binding; /* of a datagram socket: which of all it was; of several with one port the last one bound goes first */
};

/* A fresh connection accepted by lwIP for a listener. 0, or -errno and the caller aborts the pcb. */
int conn_accept(struct listener_member *member, struct tcp_pcb *pcb);

/* GZ_REQUEST_CONNECT. Failure is told through the socket's end (DEAD + error). */
void conn_connect(struct app *app, const struct gz_request *request);

/* A process rang for this socket: options, room given back, bytes to send, FIN. */
void conn_rung(struct conn *conn);

/* The last holder let go: FIN after the last byte, or RST (unread data, SO_LINGER 0). May free it. */
void conn_release(struct conn *conn);

/* RST now, whoever holds it (worker drains, listener closes with it unaccepted). The entry says ECONNRESET. */
void conn_reset(struct conn *conn);

/* Again what had failed for want of memory; connections nobody needs any more are set aside. */
void conn_retry_all(struct apps *apps);
/* Frees those, once the turn's frames are out: they may still refer to FIFO bytes. */
void conn_destroy_finished(struct apps *apps);

/* A bare entry (listeners have no pcb of their own): number n, held by app. NULL: no memory. */
struct conn *conn_create(struct apps *apps, struct arena *arena, uint32_t n);
/* There is not even memory for a struct conn: number n of the application's stock ends here, with `error`. */
void conn_refuse(struct arena *arena, uint32_t n, int error);
/* Frees the entry and its number. No pcb, no holder, no reference may be left. */
void conn_destroy(struct conn *conn);

/* Publishes GZ_WORKER_* flags; release order: what they announce is written. */
void conn_set_flags(struct conn *conn, uint32_t flags);

/* Addresses of the shared ABI (16 bytes, IPv4 mapped) to lwIP's and back. */
void conn_addr_write(const ip_addr_t *ip, uint8_t out[16]);
void conn_addr_read(const uint8_t in[16], ip_addr_t *out);

/* The stack's own address of the other's family; any if it has none. */
void conn_own_addr(const struct gz_group_page *group, const ip_addr_t *towards, ip_addr_t *out);

/* ---- between conn.c, conn_receive.c and conn_send.c; all with the connection's bucket entered ---- */

#define CONN_BLOCK_MAX (1u << GZ_BLOCK_ORDER_MAX)

/* Rings the applications that wait for this socket. */
void conn_notify(struct conn *conn);
/* Work that must not be done inside an lwIP callback, or that failed for want of memory: next turn. */
void conn_later(struct conn *conn);

/* From now on connections keep what comes out of order. Once. */
void conn_receive_open(void);
/* lwIP's callbacks for received and acknowledged data. */
err_t conn_receive(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err);
err_t conn_sent(void *arg, struct tcp_pcb *pcb, u16_t len);

/* Moves what was received into the FIFO as far as there is room. True if the application should look. */
bool conn_receive_push(struct conn *conn);
/* Reads how far the application has consumed and opens the window. False: it wrote nonsense. */
bool conn_receive_consumed(struct conn *conn);
/* Hands FIFO bytes to lwIP by reference, then the FIN if it is due. The caller runs tcp_output. */
void conn_send_push(struct conn *conn);
/* Gives the tx FIFO a bigger block if the application asked and it is empty. True if it was answered. */
bool conn_send_grow(struct conn *conn);

#endif
