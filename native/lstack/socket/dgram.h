/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A datagram socket: an lwIP UDP pcb on one side, two FIFOs of whole datagrams on the other. Every worker that may receive
 * for a port has one, so no datagram needs to change workers.
 */
#ifndef LSTACK_DGRAM_H
#define LSTACK_DGRAM_H

#include <gazelle/channel.h>

struct conn;

/* GZ_REQUEST_BIND, the first of a socket: conn->vouch says whose the port is. 0, or the errno for the application. */
int dgram_bind(struct conn *conn, const struct gz_request *request);

/* What it takes, and from where: each GZ_REQUEST_BIND says that. */
void dgram_set_peer(struct conn *conn, const struct gz_request *request);

/* A process rang: sends what stands in the FIFO. */
void dgram_rung(struct conn *conn);

/* From now on connected sockets hear of ICMP errors about what they sent; others do not want to know. Once. */
void dgram_open(void);

/* The last holder let go. What it had written is sent first. */
void dgram_close(struct conn *conn);

#endif
