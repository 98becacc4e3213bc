/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A connection towards the application: pbufs into the rx FIFO, and the window that follows its free space. */
#include <lwip/priv/tcp_priv.h>

#include "app.h"
#include "conn.h"
#include "trace.h"
#include "listener.h"
#include "worker.h"

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
bool conn_receive_consumed(struct conn *conn)
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
	if (peak < conn->rx_size / 2 || size >= CONN_BLOCK_MAX)
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
	conn->rx_head += done;
	gz_store_release(&conn->shared->worker.out_head, conn->rx_head); /* pairs with gz_fifo_readable */
	worker_count(conn->apps->stack, GZ_COUNT_rx_fifo_bytes, done);
}

/* Moves what was received into the FIFO as far as there is room. True if the application should look. */
bool conn_receive_push(struct conn *conn)
{
	bool moved = false, again;

	do {
		again = false;
		if (!conn_receive_consumed(conn)) {
			app_doom_arena(conn->apps, conn->arena, "impossible consumer index");
			return moved;
		}
		uint32_t used = conn->rx_head - conn->rx_tail, size = GZ_BLOCK_SIZE(conn->rx_block);
		if (!used) {
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

err_t conn_receive(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct conn *conn = arg;

	(void)err;
	if (__builtin_expect(conn && p && conn->apps->stack->tracing, 0))
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
	} else if (conn->orphan) {
		/* Nobody will read it: the kernel would reset, and so does lwIP (TF_RXCLOSED); this one came before that. */
		pcb->rcv_wnd += p->tot_len;
		pbuf_free(p);
		return ERR_OK;
	} else if (conn->held)
		pbuf_cat(conn->held, p);
	else
		conn->held = p;
	if (conn_receive_push(conn)) {
		if (__builtin_expect(conn->apps->stack->tracing, 0))
			trace_stored(conn);
		conn_notify(conn);
	}
	if (conn->deferred)
		listener_deliver(conn);
	return ERR_OK;
}
