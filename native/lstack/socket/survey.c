/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The walk goes by place, not by pointer: buckets of TCP connections, then ports with listeners, then ports with datagram
 * sockets. So nothing has to be kept between two parts of it, and what comes and goes meanwhile does no harm: a socket that is
 * there all the time is told of once.
 */
#include "socket/survey.h"

#include <string.h>

#include <lwip/priv/tcp_priv.h>
#include <lwip/udp.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>

#include "arena/arena.h"
#include "arena/quota.h"
#include "core/clock.h"
#include "core/worker.h"
#include "net/address.h"
#include "net/udp_table.h"
#include "socket/conn.h"
#include "socket/listener.h"
#include "socket/sockets.h"
#include "socket/stream.h"
#include "tcp/tcp_table.h"

#define TIME_NS 50000ull
#define SOCKETS_PER_LOOK 16u /* at the clock */
#define EMPTY_PER_LOOK 1024u /* ports without a socket, which cost next to nothing */

enum walk { CONNECTIONS, LISTENERS, DATAGRAMS, WALKS };

/* A cursor: the walk, how many sockets of a place were passed, the place. */
#define CURSOR(walk, passed, place) ((uint64_t)(walk) << 56 | (uint64_t)((passed)&0xffffffu) << 32 | (place))
#define CURSOR_WALK(cursor) ((cursor) >> 56)
#define CURSOR_PASSED(cursor) ((uint32_t)((cursor) >> 32) & 0xffffffu)
#define CURSOR_PLACE(cursor) ((uint32_t)(cursor))

static uint32_t no_more_than(uint32_t n, uint32_t most)
{
	return n < most ? n : most;
}

static struct gz_connection *add(struct survey *survey, enum gz_connection_kind kind, const struct conn *conn)
{
	struct gz_connection *record;

	if (survey->skip) {
		survey->skip--;
		survey->passed++;
		return NULL;
	}
	survey->full = survey->count == GZ_CONNECTIONS_AT_ONCE ||
	               (++survey->looked % SOCKETS_PER_LOOK == 0 && monotonic_ns() >= survey->until_ns);
	if (survey->full)
		return NULL;
	survey->passed++;
	if (!survey->everybodys && (!conn || conn->arena->user->uid != survey->uid))
		return NULL;
	record = &survey->record[survey->count++];
	memset(record, 0, sizeof(*record));
	record->kind = kind;
	if (conn) {
		const struct conn *held = conn->member ? conn->member->sock : conn;

		record->uid = conn->arena->user->uid;
		record->pid = survey->sockets->users->holder(held->arena, held->n);
		record->age_ms = (survey->sockets->stack->now_ns - conn->since_ns) / 1000000;
	}
	return record;
}

static void add_local(struct gz_connection *record, const ip_addr_t *ip, uint16_t port)
{
	record->v6 = !IP_IS_V4_VAL(*ip); /* or of both families, on :: */
	record->local_port = port;
	if (!IP_IS_ANY_TYPE_VAL(*ip))
		address_write(ip, record->local_addr);
}

static void add_peer(struct gz_connection *record, const ip_addr_t *ip, uint16_t port)
{
	record->peer_port = port;
	address_write(ip, record->peer_addr);
}

/* The indices of the program's end are its own word. */
static void add_fifos(struct gz_connection *record, const struct conn *conn)
{
	const struct gz_end *app = &conn->shared->app;

	record->rx_room = GZ_BLOCK_SIZE(conn->rx_block);
	record->tx_room = GZ_BLOCK_SIZE(conn->tx_block);
	record->rx_queued = no_more_than(conn->rx_head - gz_load(&app->in_tail), record->rx_room);
	record->tx_queued = no_more_than(gz_load(&app->out_head) - conn->tx_acked, record->tx_room);
	if (conn->held)
		record->rx_queued += conn->held->tot_len;
}

static void add_connection(struct survey *survey, const struct tcp_pcb *pcb)
{
	/* Before it is accepted, and once its program needs it no more, a pcb has none; its argument is another's. */
	const struct conn *conn = pcb->recv == stream_receive ? pcb->callback_arg : NULL;
	struct gz_connection *record = add(survey, GZ_CONNECTION_TCP, conn);

	if (!record)
		return;
	record->state = (uint8_t)pcb->state;
	add_local(record, &pcb->local_ip, pcb->local_port);
	add_peer(record, &pcb->remote_ip, pcb->remote_port);
	record->send_window = pcb->snd_wnd;
	record->receive_window = pcb->rcv_ann_wnd;
	record->congestion_window = pcb->cwnd;
	record->slow_start_threshold = pcb->ssthresh;
	record->mss = pcb->mss;
	record->rto_ms = (uint32_t)pcb->rto * TCP_SLOW_INTERVAL;
	record->segments_in = pcb->segments_in;
	record->segments_out = pcb->segments_out;
	record->retransmits = pcb->retransmits;
	record->idle_ms = (uint64_t)(tcp_ticks - pcb->tmr) * TCP_SLOW_INTERVAL;
	if (!conn) {
		record->flags = GZ_CONNECTION_ORPHAN;
		return;
	}
	add_fifos(record, conn);
	record->rtt_us = conn->rtt_us;
	record->bytes_received = conn->bytes_received;
	record->bytes_acked = conn->bytes_acked;
	if (conn->member)
		record->flags = GZ_CONNECTION_UNACCEPTED;
	else if (!conn->holders)
		record->flags = GZ_CONNECTION_ORPHAN;
}

static void see_connections(struct survey *survey, uint32_t bucket)
{
	for (int time_wait = 0; time_wait < 2; time_wait++)
		for (const struct tcp_pcb *pcb = tcp_table_see(bucket, time_wait); pcb && !survey->full; pcb = pcb->next)
			add_connection(survey, pcb);
}

static void see_listeners(struct survey *survey, uint16_t port)
{
	for (const struct tcp_pcb_listen *pcb = tcp_table_see_listeners(port); pcb && !survey->full; pcb = pcb->next) {
		const struct listener *listener = pcb->callback_arg;

		for (const struct listener_member *m = listener->members; m && !survey->full; m = m->next) {
			struct gz_connection *record = add(survey, GZ_CONNECTION_LISTENER, m->sock);

			if (!record)
				continue;
			add_local(record, &pcb->local_ip, port);
			record->rx_queued = no_more_than(m->head - gz_load(&m->queue->tail), m->mask + 1);
			record->rx_room = m->backlog;
		}
	}
}

static void see_datagrams(struct survey *survey, uint16_t port)
{
	for (const struct udp_pcb *pcb = udp_table_see(port); pcb && !survey->full; pcb = pcb->next) {
		struct gz_connection *record = add(survey, GZ_CONNECTION_UDP, pcb->recv_arg);

		if (!record)
			continue;
		add_local(record, &pcb->local_ip, port);
		add_peer(record, &pcb->remote_ip, pcb->remote_port);
		add_fifos(record, pcb->recv_arg);
	}
}

static bool has_place(enum walk walk, uint32_t place)
{
	return walk == LISTENERS ? tcp_table_see_listeners((uint16_t)place) != NULL
	                         : udp_table_see((uint16_t)place) != NULL;
}

/* The next place of a walk that has something, or after a while one that has nothing; UINT32_MAX: there is none. */
static uint32_t next_place(enum walk walk, uint64_t from)
{
	if (walk == CONNECTIONS)
		return tcp_table_next((uint32_t)from);
	for (uint32_t i = 0; from <= UINT16_MAX; i++, from++)
		if (has_place(walk, (uint32_t)from) || i == EMPTY_PER_LOOK)
			return (uint32_t)from;
	return UINT32_MAX;
}

static void see(struct survey *survey, enum walk walk, uint32_t place)
{
	survey->passed = 0;
	if (walk == CONNECTIONS)
		see_connections(survey, place);
	else if (walk == LISTENERS)
		see_listeners(survey, (uint16_t)place);
	else
		see_datagrams(survey, (uint16_t)place);
	survey->skip = 0;
}

void survey_go_on(struct survey *survey)
{
	uint64_t walk = CURSOR_WALK(survey->cursor), from = CURSOR_PLACE(survey->cursor);

	survey->skip = CURSOR_PASSED(survey->cursor);
	survey->until_ns = monotonic_ns() + TIME_NS;
	while (walk < WALKS) {
		uint32_t place = next_place((enum walk)walk, from);

		if (place == UINT32_MAX) {
			walk++;
			from = 0;
			continue;
		}
		if (place != from)
			survey->skip = 0; /* what was there has gone */
		see(survey, (enum walk)walk, place);
		if (survey->full) {
			survey->cursor = CURSOR(walk, survey->passed, place);
			return;
		}
		from = (uint64_t)place + 1;
		if (walk != CONNECTIONS && monotonic_ns() >= survey->until_ns) {
			survey->cursor = CURSOR(walk, 0, from);
			return;
		}
	}
	survey->cursor = GZ_CONNECTIONS_END;
}
