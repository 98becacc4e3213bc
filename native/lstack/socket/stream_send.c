/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A connection towards the network: tx FIFO bytes to lwIP by reference, acknowledged bytes back to the application. */
#include <lwip/priv/tcp_priv.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/fifo.h>
#include <gazelle/worker_page.h>

#include "arena/arena.h"
#include "socket/conn.h"
#include "socket/sockets.h"
#include "socket/stream.h"
#include "socket/orphan.h"
#include "socket/trace.h"
#include "core/worker.h"

/* Gives the FIFO a bigger block if the application asked and it is empty; answers in any case once it is. */
bool stream_send_grow(struct conn *conn)
{
	struct gz_end *app = &conn->shared->app;
	uint32_t serial = gz_load_acquire(&app->aux[GZ_AUX_GROW_SERIAL]); /* pairs with the request's release */

	if (serial == conn->grow_serial)
		return false;
	uint32_t wish = gz_load(&app->aux[GZ_AUX_GROW_SIZE]), size = GZ_BLOCK_SIZE(conn->tx_block);
	uint32_t order = arena_order(wish < STREAM_BLOCK_MAX ? wish : STREAM_BLOCK_MAX), block = 0;
	if (1u << order > size) {
		if (gz_load_acquire(&app->out_head) != conn->tx_acked) {
			/* Not empty yet: stream_sent comes back here, if no short last segment is kept corked meanwhile. */
			if (conn->pcb)
				tcp_clear_flags(conn->pcb, TF_CORK);
			return false;
		}
		block = arena_take_block(conn->arena, order);
	}
	if (block) {
		arena_give_block(conn->arena, conn->tx_block);
		conn->tx_block = block;
		gz_store(&conn->shared->worker.in_block, block);
	}
	conn->grow_serial = serial;
	gz_store_release(&conn->shared->worker.aux[GZ_AUX_GROW_SEEN], serial); /* in_block is written */
	return true;
}

void stream_send_push(struct conn *conn)
{
	struct tcp_pcb *pcb = conn->pcb;
	struct gz_end *app = &conn->shared->app;

	if (!pcb || conn->connecting || conn->fin_given)
		return;
	bool closing = conn->orphan || (gz_load_acquire(&app->flags) & GZ_APP_SHUT_WR);
	/* Pairs with gz_fifo_publish; after the flags: FIN comes last. Who has let go of it has no more say in it. */
	uint32_t head = conn->orphan ? conn->tx_end : gz_load_acquire(&app->out_head);
	uint32_t size = GZ_BLOCK_SIZE(conn->tx_block), avail = head - conn->tx_given;

	if (head - conn->tx_acked > size || avail > size) {
		conn_hostile(conn, "impossible producer index");
		return;
	}
	if (avail && conn->tx_given == conn->tx_acked) {
		if (!conn->orphan)
			conn->tx_base = gz_load(&app->out_base);
		conn->rtt_from_ns = conn->sockets->stack->now_ns;
	}
	if (__builtin_expect(avail && conn->sockets->stack->tracing, 0))
		trace_answered(conn);
	uint32_t want = avail;
	if (closing)
		tcp_clear_flags(pcb, TF_CORK); /* nothing will follow that a short last segment should wait for */
	while (want && tcp_sndbuf(pcb)) {
		uint32_t off = (conn->tx_given - conn->tx_base) & (size - 1);
		uint32_t len = LWIP_MIN(LWIP_MIN(want, size - off), LWIP_MIN(tcp_sndbuf(pcb), 0xf000u));
		err_t err = tcp_write(pcb, arena_block(conn->arena, conn->tx_block) + off, (u16_t)len,
		                      len < want ? TCP_WRITE_FLAG_MORE : 0);

		if (err != ERR_OK) {
			if (!pcb->unacked && !pcb->unsent)
				conn_later(conn); /* no acknowledgement will bring us back */
			break;
		}
		conn->tx_given += len;
		want -= len;
		worker_count(conn->sockets->stack, GZ_COUNT_tx_fifo_bytes, len);
	}
	if (closing && conn->tx_given == head) {
		err_t err = tcp_shutdown(pcb, 0, 1);

		if (err == ERR_OK)
			conn->fin_given = true;
		else if (conn->pcb)
			conn_later(conn);
	}
}

/* The first acknowledgement of bytes sent when none were under way; smoothed as RFC 6298 has it. For TCP_INFO. */
static void take_rtt(struct conn *conn)
{
	uint64_t us = (conn->sockets->stack->now_ns - conn->rtt_from_ns) / 1000;
	uint32_t sample = us < 1 ? 1 : us < 60000000 ? (uint32_t)us : 60000000;

	conn->rtt_from_ns = 0;
	conn->rtt_us = conn->rtt_us ? conn->rtt_us - conn->rtt_us / 8 + sample / 8 : sample;
	gz_store(&conn->shared->worker.aux[GZ_AUX_RTT_US], conn->rtt_us ? conn->rtt_us : 1);
	gz_store(&conn->shared->worker.aux[GZ_AUX_CWND], conn->pcb->cwnd);
	gz_store(&conn->shared->worker.aux[GZ_AUX_RETRANS], conn->pcb->retransmits);
}

err_t stream_sent(void *arg, struct tcp_pcb *pcb, u16_t len)
{
	struct conn *conn = arg;
	bool look = false;

	(void)pcb;
	if (!conn)
		return ERR_OK;
	if (conn->rtt_from_ns)
		take_rtt(conn);
	conn->tx_acked += len;
	conn->bytes_acked += len;
	gz_store_release(&conn->shared->worker.in_tail, conn->tx_acked); /* pairs with gz_fifo_writable: bytes are free */
	if (conn->orphan) {
		orphan_progress(conn);
		stream_send_push(conn);
		if (conn->fin_given && conn->tx_acked == conn->tx_given)
			conn_later(conn);
		return ERR_OK;
	}
	uint32_t flags = gz_load(&conn->shared->app.flags), size = GZ_BLOCK_SIZE(conn->tx_block);
	if (flags & GZ_APP_GROW)
		look = stream_send_grow(conn);
	stream_send_push(conn);
	/* Tells a writer that waits, at half empty: pairs with its fence between setting the flag and looking at in_tail. */
	if (flags & GZ_APP_WANT_SPACE && gz_load(&conn->shared->app.out_head) - conn->tx_acked <= size / 2)
		look = true;
	if (look)
		conn_notify(conn);
	return ERR_OK;
}
