/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <lwip/priv/tcp_priv.h>

#include <gazelle/address.h>
#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/channel.h>
#include <gazelle/fifo.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "arena/arena.h"
#include "core/worker.h"
#include "net/address.h"
#include "net/local_port.h"
#include "net/unreachable.h"
#include "net/uplink.h"
#include "socket/conn.h"
#include "socket/orphan.h"
#include "socket/sockets.h"
#include "socket/stream.h"
#include "tcp/flows.h"
#include "tcp/tcp_table.h"

/* A connection starts with this much FIFO each way, virtually: an exchange of small messages touches one page of it. */
#define START_ORDER 16u
#define START_BYTES (1u << START_ORDER)

static uint8_t ext_arg_id;

static void on_error(void *arg, err_t err);

/* lwIP frees a pcb without an error callback when TIME-WAIT ends: this is the one place that always knows. */
static void on_destroy(u8_t id, void *data)
{
	struct conn *conn = data;

	(void)id;
	if (!conn)
		return;
	conn->pcb = NULL;
	flows_remove(conn->flow);
	conn->flow = FLOWS_NONE;
}

static const struct tcp_ext_arg_callbacks ext_callbacks = { .destroy = on_destroy };

static void write_name(struct conn *conn, const struct tcp_pcb *pcb)
{
	struct gz_name *name = &conn->shared->name;

	address_write(&pcb->local_ip, name->local_addr);
	address_write(&pcb->remote_ip, name->peer_addr);
	name->local_port = pcb->local_port;
	name->peer_port = pcb->remote_port;
	name->family = IP_IS_V6(&pcb->local_ip) ? AF_INET6 : AF_INET;
	name->type = SOCK_STREAM;
	name->mss = (uint16_t)(pcb->mss - (pcb->flags & TF_TIMESTAMP ? LWIP_TCP_OPT_LEN_TS_OUT : 0));
	name->serial = ++conn->arena->serial;
}

/* Both blocks exist from the start, virtually, so that the first byte waits for nothing. */
static bool take_blocks(struct conn *conn)
{
	conn->tx_block = arena_take_block(conn->arena, START_ORDER);
	conn->rx_block = arena_take_block(conn->arena, START_ORDER);
	if (!conn->tx_block || !conn->rx_block)
		return false;
	conn->rx_size = START_BYTES;
	gz_store(&conn->shared->worker.in_block, conn->tx_block);
	gz_store(&conn->shared->worker.out_block, conn->rx_block);
	return true;
}

static void adopt_pcb(struct conn *conn, struct tcp_pcb *pcb)
{
	conn->pcb = pcb;
	conn->bucket = tcp_table_bucket(&pcb->local_ip, pcb->local_port, &pcb->remote_ip, pcb->remote_port);
	if (!ext_arg_id)
		ext_arg_id = (uint8_t)(tcp_ext_arg_alloc_id() + 1);
	tcp_ext_arg_set_callbacks(pcb, ext_arg_id - 1, &ext_callbacks);
	tcp_ext_arg_set(pcb, ext_arg_id - 1, conn);
	tcp_arg(pcb, conn);
	tcp_recv(pcb, stream_receive);
	tcp_sent(pcb, stream_sent);
	tcp_err(pcb, on_error);
	conn->flow = flows_add(pcb);
	worker_count(conn->sockets->stack, GZ_COUNT_connections, 1);
}

/* lwIP keeps the pcb for what TCP still has to do (FIN states); it no longer knows us, nor we it. */
static void part_from_pcb(struct conn *conn)
{
	struct tcp_pcb *pcb = conn->pcb;

	if (!pcb)
		return;
	tcp_ext_arg_set(pcb, ext_arg_id - 1, NULL);
	tcp_arg(pcb, NULL);
	tcp_recv(pcb, NULL);
	tcp_sent(pcb, NULL);
	tcp_err(pcb, NULL);
	conn->pcb = NULL;
	flows_remove(conn->flow);
	conn->flow = FLOWS_NONE;
}

static void abort_pcb(struct conn *conn)
{
	struct tcp_pcb *pcb = conn->pcb;

	if (!pcb)
		return;
	part_from_pcb(conn);
	worker_count(conn->sockets->stack, GZ_COUNT_resets_sent, 1);
	tcp_abort(pcb);
}

/* The window offered to the peer never exceeds the FIFO's free space. Of lwIP's own start only 64 KiB were ever said. */
static void start_window(struct conn *conn)
{
	conn->pcb->rcv_ann_right_edge = conn->pcb->rcv_nxt;
	tcp_set_rcv_wnd_limit(conn->pcb, START_BYTES);
	conn->rx_size = START_BYTES;
}

static int errno_of(const struct conn *conn, err_t err)
{
	switch (err) {
	case ERR_CLSD:
		return 0;
	case ERR_RST:
		return conn->connecting ? ECONNREFUSED : ECONNRESET;
	case ERR_ABRT:
	case ERR_TIMEOUT:
		return ETIMEDOUT;
	case ERR_RTE:
		return EHOSTUNREACH;
	case ERR_MEM:
	case ERR_BUF:
		return ENOBUFS;
	default:
		return ECONNRESET;
	}
}

static void die(struct conn *conn, int error)
{
	uint32_t flags = conn->flags | (error ? GZ_WORKER_DEAD : GZ_WORKER_FIN_ACKED | GZ_WORKER_FIN);

	if (error)
		gz_store(&conn->shared->worker.error, (uint32_t)error);
	conn->connecting = false;
	conn_set_flags(conn, flags);
	conn_notify(conn);
}

/* lwIP has freed the pcb, or is about to. */
static void on_error(void *arg, err_t err)
{
	struct conn *conn = arg;

	if (!conn)
		return;
	if (err == ERR_RST)
		worker_count(conn->sockets->stack, GZ_COUNT_resets_received, 1);
	if (conn->held && err == ERR_CLSD)
		stream_receive_push(conn);
	if (conn->deferral)
		conn->deferral->broken(conn);
	die(conn, errno_of(conn, err));
	conn_later(conn); /* an orphan is freed there */
}

/* A connect is over: nobody is reached that way. */
static void on_unreachable(struct tcp_pcb *pcb, int error)
{
	struct conn *conn = pcb->callback_arg;

	if (!conn)
		return;
	part_from_pcb(conn);
	tcp_abandon(pcb, 0);
	die(conn, error);
	conn_later(conn);
}

void stream_open(void)
{
	unreachable_on_connect(on_unreachable);
}

int stream_accept(struct conn *listening, struct tcp_pcb *pcb, struct conn **accepted)
{
	struct arena *arena = listening->arena;
	uint32_t n = arena_take_sock(arena);
	struct conn *conn;

	if (!n)
		return -ENFILE;
	conn = conn_create(listening->sockets, arena, n);
	if (!conn) {
		arena_give_sock(arena, n);
		return -ENOMEM;
	}
	if (!take_blocks(conn)) {
		conn_destroy(conn);
		return -ENOBUFS;
	}
	adopt_pcb(conn, pcb);
	uplink_hold_pcb(pcb);
	start_window(conn);
	write_name(conn, pcb);
	conn->shared->name.listener = listening->n;
	conn_set_flags(conn, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
	worker_count(conn->sockets->stack, GZ_COUNT_accepted, 1);
	*accepted = conn;
	return 0;
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct conn *conn = arg;

	(void)err;
	conn->connecting = false;
	start_window(conn);
	stream_limit_segments(conn);
	write_name(conn, pcb);
	worker_count(conn->sockets->stack, GZ_COUNT_connected, 1);
	conn_set_flags(conn, conn->flags | GZ_WORKER_CONNECTED);
	stream_send_push(conn);
	conn_notify(conn);
	return ERR_OK;
}

/* A pcb that lwIP takes for one with this local end; its bucket is entered. NULL: no memory. */
static struct tcp_pcb *open_pcb(struct conn *conn, const ip_addr_t *local, uint16_t port, const ip_addr_t *remote,
                                uint16_t remote_port)
{
	struct tcp_pcb *pcb = tcp_new_ip_type(IP_GET_TYPE(local));

	if (!pcb)
		return NULL;
	ip_set_option(pcb, SOF_REUSEADDR);
	ip_addr_copy(pcb->local_ip, *local);
	pcb->local_port = port;
	conn->bucket = tcp_table_bucket(local, port, remote, remote_port);
	tcp_table_enter(conn->bucket);
	TCP_REG(&tcp_bound_pcbs, pcb);
	ip_addr_copy(pcb->remote_ip, *remote); /* for the bucket of adopt_pcb; tcp_connect sets them again */
	pcb->remote_port = remote_port;
	return pcb;
}

/* The address it leaves by: where it is bound, or as the application has asked the kernel. False: none of that family. */
static bool choose_local(const struct protocol_stack *stack, const struct gz_request *request, const ip_addr_t *remote,
                         ip_addr_t *out)
{
	if (request->port && !gz_addr_is_any(request->addr))
		address_read(request->addr, out);
	else
		address_own(stack->group, request->own, remote, out);
	return !ip_addr_isany(out) && IP_GET_TYPE(out) == IP_GET_TYPE(remote);
}

int stream_connect(struct conn *conn, const struct gz_request *request)
{
	struct protocol_stack *stack = conn->sockets->stack;
	uint16_t port = request->port;
	ip_addr_t local, remote;
	struct tcp_pcb *pcb;
	err_t err;

	conn->connecting = true;
	address_read(request->peer, &remote);
	if (!choose_local(stack, request, &remote, &local))
		return EADDRNOTAVAIL;
	if (!port)
		port = local_port_pick(stack, &local, &remote, request->peer_port);
	else if (tcp_table_has(&local, port, &remote, request->peer_port))
		port = 0;
	if (!port)
		return EADDRNOTAVAIL;
	if (!take_blocks(conn))
		return ENOBUFS;
	pcb = open_pcb(conn, &local, port, &remote, request->peer_port);
	if (!pcb)
		return ENOBUFS;
	adopt_pcb(conn, pcb);
	uplink_hold_pcb(pcb);
	stream_apply_options(conn);
	write_name(conn, pcb);
	conn_set_flags(conn, GZ_WORKER_OPEN);
	err = tcp_connect(pcb, &remote, request->peer_port, on_connected);
	if (err != ERR_OK) {
		part_from_pcb(conn);
		tcp_abort(pcb);
	}
	tcp_table_leave();
	return err == ERR_OK ? 0 : errno_of(conn, err);
}

void stream_rung(struct conn *conn)
{
	if (!conn->pcb) {
		if (!conn->rx_size)
			return; /* never a connection, or one that had lost its port */
		if (!stream_receive_consumed(conn))
			conn_hostile(conn, "impossible consumer index");
		else if (conn->held && stream_receive_push(conn))
			conn_notify(conn);
		return;
	}
	tcp_table_enter(conn->bucket);
	uint32_t flags = gz_load_acquire(&conn->shared->app.flags);
	bool look = false;

	if (flags & GZ_APP_OPTIONS)
		stream_apply_options(conn);
	if (conn->pcb->state != TIME_WAIT) {
		look = stream_receive_push(conn);
		if (flags & GZ_APP_GROW)
			look |= stream_send_grow(conn);
		stream_send_push(conn);
		if (conn->pcb && !conn->connecting)
			tcp_output(conn->pcb);
	}
	tcp_table_leave();
	if (look)
		conn_notify(conn);
}

static bool unread(const struct conn *conn)
{
	return conn->held || gz_load_acquire(&conn->shared->app.in_tail) != conn->rx_head;
}

/*
 * The last word of the program: from here on nothing of its memory is read but the bytes themselves. False: it cannot be,
 * so nobody waits for those bytes to arrive.
 */
static bool take_last_word(struct conn *conn)
{
	const struct gz_end *app = &conn->shared->app;
	uint32_t size = GZ_BLOCK_SIZE(conn->tx_block);

	conn->tx_end = gz_load_acquire(&app->out_head); /* pairs with gz_fifo_publish: the bytes are written */
	if (conn->tx_given == conn->tx_acked)
		conn->tx_base = gz_load(&app->out_base);
	return conn->tx_end - conn->tx_acked <= size && conn->tx_end - conn->tx_given <= size;
}

void stream_release(struct conn *conn)
{
	uint32_t flags = gz_load(&conn->shared->app.flags);
	bool sound = !conn->pcb || take_last_word(conn);

	conn->orphan = true;
	if (conn->pcb) {
		tcp_table_enter(conn->bucket);
		if (conn->connecting) {
			struct tcp_pcb *pcb = conn->pcb;

			part_from_pcb(conn);
			tcp_close(pcb);
		} else if (conn->pcb->state == TIME_WAIT) {
			part_from_pcb(conn);
		} else if (flags & GZ_APP_ABORT || unread(conn) || !sound) {
			abort_pcb(conn);
		} else {
			tcp_set_flags(conn->pcb, TF_RXCLOSED); /* data from now on is answered by RST, FIN_WAIT_2 times out */
			stream_send_push(conn);
			if (conn->pcb)
				tcp_output(conn->pcb);
			if (conn->pcb && !orphan_begin(conn))
				abort_pcb(conn);
		}
		tcp_table_leave();
	}
	conn_later(conn);
}

void stream_reset(struct conn *conn)
{
	if (conn->pcb) {
		tcp_table_enter(conn->bucket);
		abort_pcb(conn);
		tcp_table_leave();
	}
	die(conn, ECONNRESET);
	if (!conn->holders) {
		conn->orphan = true;
		conn_later(conn);
	}
}

/* An orphan whose bytes are all acknowledged needs us no more: lwIP finishes the FIN states alone. */
static bool orphan_done(const struct conn *conn)
{
	return conn->orphan && !conn->member && (!conn->pcb || (conn->fin_given && conn->tx_acked == conn->tx_given));
}

void stream_destroy_finished(struct sockets *sockets)
{
	while (sockets->finished) {
		struct conn *conn = sockets->finished;

		sockets->finished = conn->retry_next;
		orphan_end(conn);
		conn_destroy(conn);
	}
}

void stream_end_overdue(struct sockets *sockets)
{
	struct conn *conn;

	while ((conn = orphan_overdue(sockets)))
		stream_reset(conn);
}

void stream_retry_all(struct sockets *sockets)
{
	struct conn *conn = sockets->retry, *next;

	sockets->retry = NULL;
	for (; conn; conn = next) {
		next = conn->retry_next;
		conn->in_retry = false;
		if (orphan_done(conn)) {
			part_from_pcb(conn);
			conn->retry_next = sockets->finished;
			sockets->finished = conn;
		} else if (conn->pcb) {
			tcp_table_enter(conn->bucket);
			stream_send_push(conn);
			if (conn->pcb && !conn->connecting)
				tcp_output(conn->pcb);
			tcp_table_leave();
			if (orphan_done(conn))
				conn_later(conn);
		}
	}
}
