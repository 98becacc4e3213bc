/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A TCP connection: lwIP's pcb on one side, a socket entry with two FIFOs on the other. Received bytes are copied once,
 * from mbufs into the rx FIFO; sent bytes are not copied at all: lwIP refers to the tx FIFO until they are acknowledged.
 * A connection outlives its last holder while it still has bytes to deliver.
 */
#ifndef LSTACK_STREAM_H
#define LSTACK_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include <lwip/tcp.h>

#include <gazelle/arena.h>
#include <gazelle/channel.h>

struct conn;
struct sockets;

/* A fresh connection accepted by lwIP for a listening socket. 0 and *conn, or -errno and the caller aborts the pcb. */
int stream_accept(struct conn *listening, struct tcp_pcb *pcb, struct conn **conn);

/* Once, before the first connect. */
void stream_open(void);

/* GZ_REQUEST_CONNECT. 0, or the errno for the application. */
int stream_connect(struct conn *conn, const struct gz_request *request);

/* A process rang for this socket: options, room given back, bytes to send, FIN. */
void stream_rung(struct conn *conn);

/* The last holder let go: FIN after the last byte, or RST (unread data, SO_LINGER 0). May free it. */
void stream_release(struct conn *conn);

/* RST now, whatever process holds it (worker drains, listener closes with it unaccepted). The entry says ECONNRESET. */
void stream_reset(struct conn *conn);

/* Resets the orphans that have waited too long. Now and then. */
void stream_end_overdue(struct sockets *sockets);

/* Again what had failed for want of memory; connections that no process needs any more are set aside. */
void stream_retry_all(struct sockets *sockets);
/* Frees those, once the turn's frames are out: they may still refer to FIFO bytes. */
void stream_destroy_finished(struct sockets *sockets);

/* ---- between stream.c, stream_receive.c and stream_send.c; all with the connection's bucket entered ---- */

#define STREAM_BLOCK_MAX (1u << GZ_BLOCK_ORDER_MAX)

/* From now on connections keep what comes out of order. Once. */
void stream_receive_open(void);
/* lwIP's callbacks for received and acknowledged data. */
err_t stream_receive(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err);
err_t stream_sent(void *arg, struct tcp_pcb *pcb, u16_t len);

/* Moves what was received into the FIFO as far as there is room. True if the application should look. */
bool stream_receive_push(struct conn *conn);
/* Reads how far the application has consumed and opens the window. False: it wrote nonsense. */
bool stream_receive_consumed(struct conn *conn);
/* Hands FIFO bytes to lwIP by reference, then the FIN if it is due. The caller runs tcp_output. */
void stream_send_push(struct conn *conn);
/* Gives the tx FIFO a bigger block if the application asked and it is empty. True if it was answered. */
bool stream_send_grow(struct conn *conn);

/* Acts on the application's struct gz_options; at the start of a connection on TCP_MAXSEG as well. */
void stream_apply_options(struct conn *conn);
void stream_limit_segments(struct conn *conn);

#endif
