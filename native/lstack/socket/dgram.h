/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A datagram socket: an lwIP UDP pcb on one side, two FIFOs of whole datagrams on the other. Every worker that may receive
 * for a port has one, so no datagram needs to change workers.
 */
#ifndef LSTACK_DGRAM_H
#define LSTACK_DGRAM_H

#include <gazelle/channel.h>

struct app;
struct conn;
struct frame;

/* GZ_REQUEST_BIND. Failure is told through the socket's end. */
void dgram_bind(struct app *app, const struct gz_request *request);

/* A process rang: sends what stands in the FIFO. */
void dgram_rung(struct conn *conn);

/* apps_icmp: told to the connected socket that sent it; others do not want to know. */
void dgram_icmp(const struct frame *frame, const uint8_t *icmp);

/* The last holder let go. What it had written is sent first. */
void dgram_close(struct conn *conn);

#endif
