/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A datagram socket: an lwIP UDP pcb on one side, two FIFOs of whole datagrams on the other. Every worker that may receive
 * for a port has one, so no datagram needs to change workers.
 */
#ifndef LSTACK_DGRAM_H
#define LSTACK_DGRAM_H

#include <gazelle/abi.h>

struct app;
struct conn;

/* GZ_REQUEST_BIND. Failure is told through the socket's end. */
void dgram_bind(struct app *app, const struct gz_request *request);

/* A process rang: sends what stands in the FIFO. */
void dgram_rung(struct conn *conn);

/* The last holder let go. What it had written is sent first. */
void dgram_close(struct conn *conn);

#endif
