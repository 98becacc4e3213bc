/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "socket/trace.h"

#include <stdlib.h>
#include <string.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/fifo.h>
#include <gazelle/histogram.h>
#include <gazelle/worker_page.h>

#include "core/clock.h"
#include "socket/conn.h"
#include "socket/sockets.h"

#define SENT_MAX 64u /* answers of a turn that are timed */

/* A connection's request under way. */
struct trace {
	uint32_t serial; /* what GZ_AUX_TRACE says */
	bool stored;     /* it is in the FIFO; only then an answer can be to it */
	uint64_t rx_ns, stack_ns, fifo_ns;
};

static struct {
	uint32_t watchers, serial;
	uint64_t rx_ns; /* of the burst being worked on */
	uint32_t sent_count;
	struct {
		uint64_t rx_ns, taken_ns;
	} sent[SENT_MAX];
} self;

static void add(struct protocol_stack *stack, enum gz_stage stage, uint64_t from_ns, uint64_t to_ns)
{
	gz_histogram_add(&stack->page->latency[stage], to_ns > from_ns ? to_ns - from_ns : 0);
}

void trace_begin(struct protocol_stack *stack)
{
	if (!self.watchers++)
		memset((void *)stack->page->latency, 0, sizeof(stack->page->latency));
	stack->tracing = true;
}

void trace_end(struct protocol_stack *stack)
{
	stack->tracing = --self.watchers > 0;
}

void trace_received(struct protocol_stack *stack)
{
	(void)stack;
	self.rx_ns = monotonic_ns();
}

void trace_arrived(struct conn *conn)
{
	struct gz_end *worker = &conn->shared->worker;

	/* Bytes that join others in the FIFO belong to a request that is being timed, or that came before we looked. */
	if (conn->rx_head != gz_load(&conn->shared->app.in_tail))
		return;
	if (!conn->trace)
		conn->trace = calloc(1, sizeof(*conn->trace));
	if (!conn->trace)
		return;
	*conn->trace = (struct trace){ .serial = ++self.serial, .rx_ns = self.rx_ns, .stack_ns = monotonic_ns() };
	gz_store(&worker->aux[GZ_AUX_TRACE], self.serial); /* before the bytes, whose release it goes with */
}

void trace_stored(struct conn *conn)
{
	if (!conn->trace || conn->trace->stored)
		return;
	conn->trace->fifo_ns = monotonic_ns();
	conn->trace->stored = true;
}

/* The time whose low 32 bits these are, within two seconds of another; not before it: bytes are read as soon as they show. */
static uint64_t later(uint64_t than_ns, uint32_t low)
{
	int32_t after = (int32_t)(low - (uint32_t)than_ns);

	return than_ns + (after > 0 ? (uint64_t)after : 0);
}

void trace_answered(struct conn *conn)
{
	struct protocol_stack *stack = conn->sockets->stack;
	const struct gz_end *app = &conn->shared->app;
	struct trace *trace = conn->trace;
	uint64_t taken, read, write;

	/* The acquire pairs with the application's release: the stamps are written. */
	if (!trace || !trace->stored || gz_load_acquire(&app->aux[GZ_AUX_TRACED]) != trace->serial)
		return;
	trace->stored = false;
	taken = monotonic_ns();
	read = later(trace->fifo_ns, gz_load(&app->aux[GZ_AUX_READ_NS]));
	write = later(read, gz_load(&app->aux[GZ_AUX_WRITE_NS]));
	if (write > taken || self.sent_count == SENT_MAX)
		return; /* not true, or too many */
	add(stack, GZ_STAGE_STACK, trace->rx_ns, trace->stack_ns);
	add(stack, GZ_STAGE_FIFO, trace->stack_ns, trace->fifo_ns);
	add(stack, GZ_STAGE_READ, trace->fifo_ns, read);
	add(stack, GZ_STAGE_WRITE, read, write);
	add(stack, GZ_STAGE_TAKEN, write, taken);
	self.sent[self.sent_count].rx_ns = trace->rx_ns;
	self.sent[self.sent_count++].taken_ns = taken;
}

void trace_sent(struct protocol_stack *stack)
{
	uint64_t now = self.sent_count ? monotonic_ns() : 0;

	for (uint32_t i = 0; i < self.sent_count; i++) {
		add(stack, GZ_STAGE_SENT, self.sent[i].taken_ns, now);
		add(stack, GZ_STAGE_TOTAL, self.sent[i].rx_ns, now);
	}
	self.sent_count = 0;
}
