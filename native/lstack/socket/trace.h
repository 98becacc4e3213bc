/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Where the time of a request goes: for one request of each connection at a time, time stamps at NIC rx, in the stack, in the
 * FIFO, at the application's read and write, and back to NIC tx, into the histograms of the worker page. The application's two
 * stamps come by the socket's entry; what it forges there spoils these figures and nothing else. Off, it costs a look at a flag.
 */
#ifndef LSTACK_TRACE_H
#define LSTACK_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/worker.h"

struct conn;

/* One more, one less that wants to see it: the first clears the histograms. */
void trace_begin(struct protocol_stack *stack);
void trace_end(struct protocol_stack *stack);

/* Each turn while tracing: a burst has been received; the turn's frames have been sent. */
void trace_received(struct protocol_stack *stack);
void trace_sent(struct protocol_stack *stack);

/* Of a connection while tracing: data has come for it; it is in the FIFO; bytes of the application are taken up. */
void trace_arrived(struct conn *conn);
void trace_stored(struct conn *conn);
void trace_answered(struct conn *conn);

#endif
