/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <lwip/udp.h>

#include "app.h"
#include "conn.h"
#include "dgram.h"
#include "worker.h"

/* Room for the largest datagram both ways; virtual until used. */
#define BLOCK_ORDER 18u

static void on_datagram(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *addr, u16_t port)
{
	struct conn *conn = arg;
	struct protocol_stack *stack = conn->apps->stack;
	uint32_t size = GZ_BLOCK_SIZE(conn->rx_block), at, space = GZ_DATAGRAM_SPACE(p->tot_len);
	uint8_t *block = arena_block(conn->arena, conn->rx_block);
	/* pairs with gz_fifo_consume: those bytes are free */
	uint32_t used = conn->rx_head - gz_load_acquire(&conn->shared->app.in_tail);

	(void)pcb;
	if (used > size) {
		app_doom_arena(conn->apps, conn->arena, "impossible consumer index");
		goto drop;
	}
	if (size - used < space)
		goto drop; /* as the kernel does when the receive buffer is full */
	if (!used) {
		conn->rx_base = conn->rx_head;
		gz_store(&conn->shared->worker.out_base, conn->rx_base);
	}
	struct gz_datagram header = { .len = p->tot_len, .port = port };
	conn_addr_write(addr, header.addr);
	gz_fifo_copy_in(block, size, conn->rx_base, conn->rx_head, &header, sizeof(header));
	at = conn->rx_head + (uint32_t)sizeof(header);
	for (struct pbuf *q = p; q; q = q->next) {
		gz_fifo_copy_in(block, size, conn->rx_base, at, q->payload, q->len);
		at += q->len;
	}
	conn->rx_head += space;
	gz_store_release(&conn->shared->worker.out_head, conn->rx_head); /* pairs with gz_fifo_readable */
	pbuf_free(p);
	worker_count(stack, GZ_COUNT_datagrams_in, 1);
	conn_notify(conn);
	return;

drop:
	worker_count(stack, GZ_COUNT_datagrams_dropped, 1);
	pbuf_free(p);
}

static void fail(struct conn *conn, int error)
{
	gz_store(&conn->shared->worker.error, (uint32_t)error);
	conn_set_flags(conn, GZ_WORKER_OPEN | GZ_WORKER_DEAD);
	conn_notify(conn);
}

static bool open_socket(struct app *app, struct conn *conn)
{
	conn->bucket = UINT32_MAX;
	app_hold(app, conn);
	conn->rx_block = arena_take_block(conn->arena, BLOCK_ORDER);
	conn->tx_block = arena_take_block(conn->arena, BLOCK_ORDER);
	if (!conn->rx_block || !conn->tx_block)
		return false;
	gz_store(&conn->shared->worker.out_block, conn->rx_block);
	gz_store(&conn->shared->worker.in_block, conn->tx_block);
	conn->udp = udp_new_ip_type(IPADDR_TYPE_V4);
	return conn->udp;
}

void dgram_bind(struct app *app, const struct gz_request *request)
{
	struct conn *conn = app->arena->conns[request->sock];
	struct gz_name *name = &app->arena->shared->sock[request->sock].name;

	if (!conn) {
		conn = conn_create(app->apps, app->arena, request->sock);
		if (!conn) {
			conn_refuse(app->arena, request->sock, ENOMEM);
			return;
		}
		if (!open_socket(app, conn)) {
			fail(conn, ENOBUFS);
			return;
		}
		udp_recv(conn->udp, on_datagram, conn);
	}
	if (!conn->udp)
		return; /* it names a connection */
	/* The kernel's placeholder has arbitrated the port, so lwIP's own search is skipped. */
	conn_addr_read(request->addr, &conn->udp->local_ip);
	if (conn->udp->local_port != request->port) {
		ip_addr_t local = conn->udp->local_ip;

		ip_set_option(conn->udp, SOF_REUSEADDR);
		if (udp_bind(conn->udp, &local, request->port) != ERR_OK) {
			fail(conn, EADDRINUSE);
			return;
		}
	}
	if (request->peer_port) {
		conn_addr_read(request->peer, &conn->udp->remote_ip);
		conn->udp->remote_port = request->peer_port;
		conn->udp->flags |= UDP_FLAGS_CONNECTED;
	} else {
		udp_disconnect(conn->udp);
	}
	memcpy(name->local_addr, request->addr, 16);
	memcpy(name->peer_addr, request->peer, 16);
	name->local_port = request->port;
	name->peer_port = request->peer_port;
	name->family = request->family;
	name->type = SOCK_DGRAM;
	conn_set_flags(conn, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
	conn_notify(conn);
}

/* One datagram out of the FIFO. Returns the bytes it took there, 0 = none, GZ_FIFO_BROKEN = nonsense. */
static uint32_t send_one(struct conn *conn, uint32_t waiting)
{
	uint32_t size = GZ_BLOCK_SIZE(conn->tx_block), space;
	const uint8_t *block = arena_block(conn->arena, conn->tx_block);
	struct gz_datagram header;
	ip_addr_t to;

	if (!waiting)
		return 0;
	if (waiting < sizeof(header))
		return GZ_FIFO_BROKEN;
	gz_fifo_copy_out(block, size, conn->tx_base, conn->tx_acked, &header, sizeof(header));
	if (header.len > GZ_DATAGRAM_MAX)
		return GZ_FIFO_BROKEN;
	space = GZ_DATAGRAM_SPACE(header.len);
	if (space > waiting)
		return GZ_FIFO_BROKEN;
	struct pbuf *p = pbuf_alloc(PBUF_TRANSPORT, (u16_t)header.len, PBUF_RAM);
	if (!p) {
		worker_count(conn->apps->stack, GZ_COUNT_alloc_failed, 1);
		return space; /* datagrams may be lost; nothing waits for them */
	}
	gz_fifo_copy_out(block, size, conn->tx_base, conn->tx_acked + (uint32_t)sizeof(header), p->payload, header.len);
	conn_addr_read(header.addr, &to);
	if (udp_sendto(conn->udp, p, &to, header.port) == ERR_OK)
		worker_count(conn->apps->stack, GZ_COUNT_datagrams_out, 1);
	else
		worker_count(conn->apps->stack, GZ_COUNT_datagrams_dropped, 1);
	pbuf_free(p);
	return space;
}

void dgram_rung(struct conn *conn)
{
	struct gz_end *app = &conn->shared->app;
	uint32_t head = gz_load_acquire(&app->out_head); /* pairs with gz_fifo_publish */
	uint32_t size = GZ_BLOCK_SIZE(conn->tx_block), done;
	bool moved = false;

	if (head - conn->tx_acked > size) {
		app_doom_arena(conn->apps, conn->arena, "impossible producer index");
		return;
	}
	if (head != conn->tx_acked)
		conn->tx_base = gz_load(&app->out_base);
	while ((done = send_one(conn, head - conn->tx_acked))) {
		if (done == GZ_FIFO_BROKEN) {
			app_doom_arena(conn->apps, conn->arena, "broken datagram");
			return;
		}
		conn->tx_acked += done;
		moved = true;
	}
	gz_store_release(&conn->shared->worker.in_tail, conn->tx_acked); /* pairs with gz_fifo_writable */
	if (moved && gz_load(&app->flags) & GZ_APP_WANT_SPACE)
		conn_notify(conn);
}

void dgram_close(struct conn *conn)
{
	dgram_rung(conn);
	udp_remove(conn->udp);
	conn->udp = NULL;
}
