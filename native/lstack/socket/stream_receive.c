/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A connection towards the application: pbufs into the rx FIFO, and the window that follows its free space. */
#include <stdlib.h>

#include <lwip/priv/tcp_priv.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/fifo.h>
#include <gazelle/worker_page.h>

#include "socket/ahead.h"
#include "arena/arena.h"
#include "socket/conn.h"
#include "socket/sockets.h"
#include "socket/stream.h"
#include "socket/trace.h"
#include "core/worker.h"

/* The application consumed, or the FIFO grew: offers `bytes` more to the peer; tells it at once if that matters to it. */
static void open_window(struct conn *conn, uint32_t bytes)
{
	struct tcp_pcb *pcb = conn->pcb;

	if (!pcb || pcb->state == TIME_WAIT || !bytes)
		return;
	pcb->rcv_wnd += bytes;
	if (pcb->rcv_wnd > TCP_WND_MAX(pcb))
		pcb->rcv_wnd = TCP_WND_MAX(pcb);
	if (tcp_update_rcv_ann_wnd(pcb) >= LWIP_MIN(conn->rx_size / 4, 65535u))
		tcp_ack_now(pcb); /* leaves with the tcp_output that ends every section of the table */
}

/* Reads how far the application has consumed. False: it wrote nonsense. */
bool stream_receive_consumed(struct conn *conn)
{
	uint32_t tail = gz_load_acquire(&conn->shared->app.in_tail); /* pairs with gz_fifo_consume: those bytes are free */
	uint32_t eaten = tail - conn->rx_tail;

	if (eaten > conn->rx_head - conn->rx_tail)
		return false;
	conn->rx_tail = tail;
	open_window(conn, eaten);
	return true;
}

/* An empty FIFO that was more than half full grows, and the peer may then send as much more. */
static void maybe_grow_rx(struct conn *conn)
{
	uint32_t peak = conn->rx_peak, size = GZ_BLOCK_SIZE(conn->rx_block), block;

	conn->rx_peak = 0;
	if (peak < conn->rx_size / 2 || size >= STREAM_BLOCK_MAX)
		return;
	block = arena_take_block(conn->arena, arena_order(size * 4));
	if (!block)
		return;
	arena_give_block(conn->arena, conn->rx_block);
	conn->rx_block = block;
	gz_store(&conn->shared->worker.out_block, block);
	conn->rx_size = GZ_BLOCK_SIZE(block);
	if (conn->pcb && conn->pcb->state != TIME_WAIT)
		tcp_set_rcv_wnd_limit(conn->pcb, conn->rx_size);
}

static void copy_held(struct conn *conn, uint32_t room)
{
	uint32_t size = GZ_BLOCK_SIZE(conn->rx_block), done = 0;
	uint8_t *block = arena_block(conn->arena, conn->rx_block);

	while (conn->held && done < room) {
		struct pbuf *p = conn->held;
		uint32_t len = LWIP_MIN(p->len, room - done);

		gz_fifo_copy_in(block, size, conn->rx_base, conn->rx_head + done, p->payload, len);
		done += len;
		if (len < p->len) {
			pbuf_remove_header(p, len);
			/* tot_len of the chain's head went down with its len; that is all lwIP wants of it */
			break;
		}
		conn->held = p->next;
		if (p->next)
			pbuf_ref(p->next);
		pbuf_free(p);
	}
	if (!conn->held) {
		done += conn->rx_follows; /* it lies behind what was copied */
		conn->rx_follows = 0;
	}
	conn->rx_head += done;
	conn->bytes_received += done;
	gz_store_release(&conn->shared->worker.out_head, conn->rx_head); /* pairs with gz_fifo_readable */
	worker_count(conn->sockets->stack, GZ_COUNT_rx_fifo_bytes, done);
}

/* Moves what was received into the FIFO as far as there is room. True if the application should look. */
bool stream_receive_push(struct conn *conn)
{
	bool moved = false, again;

	do {
		again = false;
		if (!stream_receive_consumed(conn)) {
			conn_hostile(conn, "impossible consumer index");
			return moved;
		}
		uint32_t used = conn->rx_head - conn->rx_tail, size = GZ_BLOCK_SIZE(conn->rx_block);
		if (!used && !conn->ahead && !conn->rx_follows) { /* else bytes lie in the block already */
			maybe_grow_rx(conn);
			size = GZ_BLOCK_SIZE(conn->rx_block);
			conn->rx_base = conn->rx_head;
			gz_store(&conn->shared->worker.out_base, conn->rx_base);
		}
		if (conn->held && used < size) {
			copy_held(conn, size - used);
			used = conn->rx_head - conn->rx_tail;
			moved = true;
		}
		if (used > conn->rx_peak)
			conn->rx_peak = used;
		if (!conn->held && used <= conn->rx_size / 2) {
			conn_set_flags(conn, conn->flags & ~GZ_WORKER_WANT_SPACE);
			break;
		}
		if (!(conn->flags & GZ_WORKER_WANT_SPACE)) {
			conn_set_flags(conn, conn->flags | GZ_WORKER_WANT_SPACE);
			gz_fence(); /* pairs with the application's fence between consuming and looking at this flag */
			again = gz_load(&conn->shared->app.in_tail) != conn->rx_tail;
		}
	} while (again);

	if (!conn->held && conn->fin_seen && !(conn->flags & GZ_WORKER_FIN)) {
		conn_set_flags(conn, conn->flags | GZ_WORKER_FIN);
		moved = true;
	}
	return moved;
}

/* The connection of a pcb that has one and can keep what comes out of order. */
static struct conn *keeper(const struct tcp_pcb *pcb)
{
	struct conn *conn = pcb->recv == stream_receive ? pcb->callback_arg : NULL;

	return conn && !conn->orphan && !conn->held && !conn->fin_seen ? conn : NULL;
}

static void drop_ahead(struct conn *conn)
{
	free(conn->ahead);
	conn->ahead = NULL;
}

/* Nobody waits for it any more, or there is nothing. */
static void tidy_ahead(struct conn *conn)
{
	if (!conn->ahead->count && !conn->ahead->fin)
		drop_ahead(conn);
}

static int keep_ahead(struct tcp_pcb *pcb, uint32_t seqno, const struct pbuf *p, int fin, uint32_t *left, uint32_t *right)
{
	struct conn *conn = keeper(pcb);
	uint32_t offset = seqno - pcb->rcv_nxt, size, at, end;
	const struct ahead_piece *piece;

	if (!conn)
		return 0;
	size = GZ_BLOCK_SIZE(conn->rx_block);
	end = offset + p->tot_len;
	/* Neither beyond the window nor over what the application has not consumed yet. */
	if (end > pcb->rcv_wnd || end > size - (conn->rx_head - conn->rx_tail))
		return 0;
	if (!conn->ahead)
		conn->ahead = calloc(1, sizeof(*conn->ahead));
	if (!conn->ahead)
		return 0;
	if (fin) {
		conn->ahead->fin = true;
		conn->ahead->fin_at = seqno + p->tot_len;
	}
	piece = p->tot_len ? ahead_add(conn->ahead, seqno, seqno + p->tot_len) : NULL;
	if (!piece) {
		tidy_ahead(conn);
		return 0;
	}
	at = conn->rx_head + offset;
	for (; p; p = p->next) {
		gz_fifo_copy_in(arena_block(conn->arena, conn->rx_block), size, conn->rx_base, at, p->payload, p->len);
		at += p->len;
	}
	*left = piece->from;
	*right = piece->to;
	return 1;
}

static uint32_t following(struct tcp_pcb *pcb)
{
	struct conn *conn = keeper(pcb);

	if (!conn || !conn->ahead)
		return 0;
	conn->rx_follows = ahead_take(conn->ahead, pcb->rcv_nxt);
	tidy_ahead(conn);
	return conn->rx_follows;
}

static int fin_follows(struct tcp_pcb *pcb)
{
	struct conn *conn = keeper(pcb);

	if (!conn || !conn->ahead || !conn->ahead->fin || conn->ahead->fin_at != pcb->rcv_nxt)
		return 0;
	drop_ahead(conn);
	return 1;
}

void stream_receive_open(void)
{
	static const struct ahead_owner owner = { .keep = keep_ahead, .following = following, .fin_follows = fin_follows };

	ahead_set_owner(&owner);
}

err_t stream_receive(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct conn *conn = arg;

	(void)err;
	if (__builtin_expect(conn && p && conn->sockets->stack->tracing, 0))
		trace_arrived(conn);
	if (!conn) {
		if (p)
			pbuf_free(p);
		return ERR_OK;
	}
	if (!p) {
		conn->fin_seen = true;
		if (pcb->state == TIME_WAIT)
			conn_set_flags(conn, conn->flags | GZ_WORKER_FIN_ACKED);
		if (conn->orphan)
			return ERR_OK;
	} else if (conn->orphan) {
		/* Nobody will read it: the kernel would reset, and so does lwIP (TF_RXCLOSED); this one came before that. */
		pcb->rcv_wnd += p->tot_len + conn->rx_follows;
		conn->rx_follows = 0;
		pbuf_free(p);
		return ERR_OK;
	} else if (conn->held)
		pbuf_cat(conn->held, p);
	else
		conn->held = p;
	if (stream_receive_push(conn)) {
		if (__builtin_expect(conn->sockets->stack->tracing, 0))
			trace_stored(conn);
		conn_notify(conn);
	}
	if (conn->deferral)
		conn->deferral->ready(conn);
	return ERR_OK;
}
