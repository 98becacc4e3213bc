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

#include "apps/app.h"
#include "socket/conn.h"
#include "socket/dgram.h"
#include "shared/flows.h"
#include "socket/listener.h"
#include "apps/orphan.h"
#include "net/steer.h"
#include "tcp/tcp_table.h"
#include "net/uplink.h"
#include "apps/vouch.h"
#include "core/worker.h"

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

void conn_set_flags(struct conn *conn, uint32_t flags)
{
	if (flags == conn->flags)
		return;
	conn->flags = flags;
	/* Pairs with the application's acquire load of flags: what they announce (error, bytes, name) is written. */
	gz_store_release(&conn->shared->worker.flags, flags);
}

void conn_notify(struct conn *conn)
{
	app_notify(conn->apps, conn->arena, conn->n);
}

void conn_later(struct conn *conn)
{
	if (conn->in_retry)
		return;
	conn->in_retry = true;
	conn->retry_next = conn->apps->retry;
	conn->apps->retry = conn;
}

struct conn *conn_create(struct apps *apps, struct arena *arena, uint32_t n)
{
	struct conn *conn = calloc(1, sizeof(*conn));

	if (!conn || !quota_charge(arena->user, &conn->charges, QUOTA_SOCKETS)) {
		free(conn);
		return NULL;
	}
	conn->apps = apps;
	conn->arena = arena;
	conn->shared = &arena->shared->sock[n];
	conn->n = n;
	conn->flow = FLOWS_NONE;
	arena->conns[n] = conn;
	arena_get(arena);
	worker_count(apps->stack, GZ_COUNT_sockets, 1);
	return conn;
}

void conn_refuse(struct arena *arena, uint32_t n, int error)
{
	struct gz_end *end = &arena->shared->sock[n].worker;

	gz_store(&end->error, (uint32_t)error);
	gz_store_release(&end->flags, GZ_WORKER_OPEN | GZ_WORKER_DEAD); /* the error is written */
}

void conn_destroy(struct conn *conn)
{
	struct arena *arena = conn->arena;

	orphan_end(conn);
	if (conn->held)
		pbuf_free(conn->held);
	free(conn->ahead);
	free(conn->trace);
	vouch_drop(conn->apps, conn->vouch);
	gz_store_release(&conn->shared->worker.flags, 0);
	arena_give_block(arena, conn->rx_block);
	arena_give_block(arena, conn->tx_block);
	arena_give_sock(arena, conn->n);
	quota_settle(arena->user, &conn->charges);
	worker_count(conn->apps->stack, GZ_COUNT_sockets, (uint64_t)-1);
	if (conn->bucket != UINT32_MAX && !conn->listens)
		worker_count(conn->apps->stack, GZ_COUNT_connections, (uint64_t)-1);
	arena_put(arena);
	free(conn);
}

void conn_addr_write(const ip_addr_t *ip, uint8_t out[16])
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	if (IP_IS_V6(ip)) {
		memcpy(out, ip_2_ip6(ip)->addr, 16);
		return;
	}
	memcpy(out, mapped, 12);
	memcpy(out + 12, &ip_2_ip4(ip)->addr, 4);
}

void conn_addr_read(const uint8_t in[16], ip_addr_t *out)
{
	memset(out, 0, sizeof(*out));
	if (gz_addr_is4(in)) {
		memcpy(&ip_2_ip4(out)->addr, in + 12, 4);
		return;
	}
	IP_SET_TYPE(out, IPADDR_TYPE_V6);
	memcpy(ip_2_ip6(out)->addr, in, 16);
}

void conn_own_addr(const struct gz_group_page *group, const ip_addr_t *towards, ip_addr_t *out)
{
	if (IP_IS_V6(towards))
		conn_addr_read(group->host_addr6, out);
	else
		ip_addr_set_ip4_u32(out, group->host_addr_be);
}

static void write_name(struct conn *conn, const struct tcp_pcb *pcb)
{
	struct gz_name *name = &conn->shared->name;

	conn_addr_write(&pcb->local_ip, name->local_addr);
	conn_addr_write(&pcb->remote_ip, name->peer_addr);
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
	tcp_recv(pcb, conn_receive);
	tcp_sent(pcb, conn_sent);
	tcp_err(pcb, on_error);
	conn->flow = flows_add(pcb);
	worker_count(conn->apps->stack, GZ_COUNT_connections, 1);
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
	worker_count(conn->apps->stack, GZ_COUNT_resets_sent, 1);
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
		worker_count(conn->apps->stack, GZ_COUNT_resets_received, 1);
	if (conn->held && err == ERR_CLSD)
		conn_receive_push(conn);
	if (conn->deferred)
		listener_forget_deferred(conn);
	die(conn, errno_of(conn, err));
	conn_later(conn); /* an orphan is freed there */
}

int conn_accept(struct listener_member *member, struct tcp_pcb *pcb)
{
	struct arena *arena = member->sock->arena;
	uint32_t n = arena_take_sock(arena);
	struct conn *conn;

	if (!n)
		return -ENFILE;
	conn = conn_create(member->listener->apps, arena, n);
	if (!conn) {
		arena_give_sock(arena, n);
		return -ENOMEM;
	}
	conn->bucket = UINT32_MAX;
	if (!take_blocks(conn)) {
		conn_destroy(conn);
		return -ENOBUFS;
	}
	adopt_pcb(conn, pcb);
	uplink_hold_pcb(pcb);
	start_window(conn);
	write_name(conn, pcb);
	conn->shared->name.listener = member->sock->n;
	conn->member = member;
	conn_set_flags(conn, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
	worker_count(conn->apps->stack, GZ_COUNT_accepted, 1);
	return 0;
}

/* TCP_MAXSEG, set before the connection was made. */
static void limit_segments(struct conn *conn)
{
	uint32_t most = gz_load(&conn->shared->options.maxseg);

	if (most >= 88 && most < conn->pcb->mss) /* Linux takes no less */
		conn->pcb->mss = (u16_t)most;
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct conn *conn = arg;

	(void)err;
	conn->connecting = false;
	start_window(conn);
	limit_segments(conn);
	write_name(conn, pcb);
	worker_count(conn->apps->stack, GZ_COUNT_connected, 1);
	conn_set_flags(conn, conn->flags | GZ_WORKER_CONNECTED);
	conn_send_push(conn);
	conn_notify(conn);
	return ERR_OK;
}

static void apply_options(struct conn *conn)
{
	struct gz_options *o = &conn->shared->options;
	struct tcp_pcb *pcb = conn->pcb;

	if (!pcb)
		return;
	if (!gz_load(&o->nodelay)) {
		tcp_clear_flags(pcb, TF_NODELAY);
	} else if (!tcp_is_flag_set(pcb, TF_NODELAY)) {
		tcp_set_flags(pcb, TF_NODELAY);
		if (!conn->connecting) {
			/* What was written before leaves now, as Linux has it, corked or not; what follows may be corked again. */
			tcp_clear_flags(pcb, TF_CORK);
			conn_send_push(conn);
			if (!conn->pcb)
				return;
			tcp_output(pcb);
		}
	}
	if (gz_load(&o->cork))
		tcp_set_flags(pcb, TF_CORK);
	else
		tcp_clear_flags(pcb, TF_CORK);
	if (gz_load(&o->keepalive))
		ip_set_option(pcb, SOF_KEEPALIVE);
	else
		ip_reset_option(pcb, SOF_KEEPALIVE);
	uint32_t idle = gz_load(&o->keepidle_s), intvl = gz_load(&o->keepintvl_s), cnt = gz_load(&o->keepcnt);
	if (idle && idle <= 32767)
		pcb->keep_idle = idle * 1000u;
	if (intvl && intvl <= 32767)
		pcb->keep_intvl = intvl * 1000u;
	if (cnt && cnt <= 127)
		pcb->keep_cnt = cnt;
	uint32_t tos = gz_load(&o->tos), ttl = gz_load(&o->ttl);
	if (tos <= 255)
		pcb->tos = (u8_t)tos;
	if (ttl && ttl <= 255)
		pcb->ttl = (u8_t)ttl;
}

void conn_connect(struct app *app, const struct gz_request *request)
{
	struct apps *apps = app->apps;
	struct conn *conn = conn_create(apps, app->arena, request->sock);
	ip_addr_t local, remote;
	struct tcp_pcb *pcb;
	uint16_t port = request->port;
	int error;

	if (!conn) {
		conn_refuse(app->arena, request->sock, ENOMEM);
		return;
	}
	app_hold(app, conn);
	conn->bucket = UINT32_MAX;
	conn->connecting = true;
	conn_addr_read(request->peer, &remote);
	conn_own_addr(apps->stack->group, &remote, &local);
	error = ECONNRESET;
	if (request->family == AF_UNSPEC)
		goto fail;
	error = EADDRNOTAVAIL;
	if (ip_addr_isany(&local))
		goto fail;
	if (port) {
		struct vouch *vouch = NULL;

		error = vouch_take(app, request, &vouch);
		if (error)
			goto fail;
		vouch_drop(apps, vouch); /* the connection needs no more: none but its peer can reach it */
		error = EADDRNOTAVAIL;
	}
	if (!port)
		port = steer_pick_port(apps->stack, &local, &remote, request->peer_port);
	else if (tcp_table_has(&local, port, &remote, request->peer_port))
		port = 0;
	if (!port)
		goto fail;
	error = ENOBUFS;
	if (!take_blocks(conn))
		goto fail;
	pcb = tcp_new_ip_type(IP_GET_TYPE(&local));
	if (!pcb)
		goto fail;
	ip_set_option(pcb, SOF_REUSEADDR);
	ip_addr_copy(pcb->local_ip, local);
	pcb->local_port = port;
	conn->bucket = tcp_table_bucket(&local, port, &remote, request->peer_port);
	tcp_table_enter(conn->bucket);
	TCP_REG(&tcp_bound_pcbs, pcb);
	ip_addr_copy(pcb->remote_ip, remote); /* for the bucket of adopt_pcb; tcp_connect sets them again */
	pcb->remote_port = request->peer_port;
	adopt_pcb(conn, pcb);
	uplink_hold_pcb(pcb);
	apply_options(conn);
	write_name(conn, pcb);
	conn_set_flags(conn, GZ_WORKER_OPEN);
	err_t err = tcp_connect(pcb, &remote, request->peer_port, on_connected);
	if (err != ERR_OK) {
		part_from_pcb(conn);
		tcp_abort(pcb);
	}
	tcp_table_leave();
	if (err == ERR_OK)
		return;
	error = errno_of(conn, err);
fail:
	conn_set_flags(conn, GZ_WORKER_OPEN);
	die(conn, error);
}

void conn_rung(struct conn *conn)
{
	if (conn->udp) {
		dgram_rung(conn);
		return;
	}
	if (!conn->pcb) {
		if (!conn->rx_size)
			return; /* never a connection, or one that had lost its port */
		if (!conn_receive_consumed(conn))
			app_doom_arena(conn->apps, conn->arena, "impossible consumer index");
		else if (conn->held && conn_receive_push(conn))
			conn_notify(conn);
		return;
	}
	tcp_table_enter(conn->bucket);
	uint32_t flags = gz_load_acquire(&conn->shared->app.flags);
	bool look = false;

	if (flags & GZ_APP_OPTIONS)
		apply_options(conn);
	if (conn->pcb->state != TIME_WAIT) {
		look = conn_receive_push(conn);
		if (flags & GZ_APP_GROW)
			look |= conn_send_grow(conn);
		conn_send_push(conn);
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

void conn_release(struct conn *conn)
{
	uint32_t flags = gz_load(&conn->shared->app.flags);
	bool sound = conn->udp || take_last_word(conn);

	conn->orphan = true;
	if (conn->udp)
		dgram_close(conn);
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
			conn_send_push(conn);
			if (conn->pcb)
				tcp_output(conn->pcb);
			if (conn->pcb && !orphan_begin(conn))
				abort_pcb(conn);
		}
		tcp_table_leave();
	}
	conn_later(conn);
}

void conn_reset(struct conn *conn)
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

void conn_destroy_finished(struct apps *apps)
{
	while (apps->finished) {
		struct conn *conn = apps->finished;

		apps->finished = conn->retry_next;
		conn_destroy(conn);
	}
}

void conn_retry_all(struct apps *apps)
{
	struct conn *conn = apps->retry, *next;

	apps->retry = NULL;
	for (; conn; conn = next) {
		next = conn->retry_next;
		conn->in_retry = false;
		if (orphan_done(conn)) {
			part_from_pcb(conn);
			conn->retry_next = apps->finished;
			apps->finished = conn;
		} else if (conn->pcb) {
			tcp_table_enter(conn->bucket);
			conn_send_push(conn);
			if (conn->pcb && !conn->connecting)
				tcp_output(conn->pcb);
			tcp_table_leave();
			if (orphan_done(conn))
				conn_later(conn);
		}
	}
}
