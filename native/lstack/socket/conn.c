/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "socket/conn.h"

#include <stdlib.h>

#include <lwip/pbuf.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/fifo.h>
#include <gazelle/worker_page.h>

#include "arena/arena.h"
#include "arena/quota.h"
#include "core/worker.h"
#include "socket/sockets.h"
#include "socket/vouch.h"
#include "tcp/flows.h"

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
	conn->sockets->users->notify(conn->arena, conn->n);
}

void conn_hostile(struct conn *conn, const char *why)
{
	conn->sockets->users->hostile(conn->arena, why);
}

void conn_later(struct conn *conn)
{
	if (conn->in_retry)
		return;
	conn->in_retry = true;
	conn->retry_next = conn->sockets->retry;
	conn->sockets->retry = conn;
}

struct conn *conn_create(struct sockets *sockets, struct arena *arena, uint32_t n)
{
	struct conn *conn = calloc(1, sizeof(*conn));

	if (!conn || !quota_charge(arena->user, &conn->charges, QUOTA_SOCKETS)) {
		free(conn);
		return NULL;
	}
	conn->sockets = sockets;
	conn->arena = arena;
	conn->shared = &arena->shared->sock[n];
	conn->n = n;
	conn->bucket = UINT32_MAX;
	conn->flow = FLOWS_NONE;
	conn->since_ns = sockets->stack->now_ns;
	arena->conns[n] = conn;
	arena_get(arena);
	worker_count(sockets->stack, GZ_COUNT_sockets, 1);
	return conn;
}

void conn_refuse(struct arena *arena, uint32_t n, int error)
{
	struct gz_end *end = &arena->shared->sock[n].worker;

	gz_store(&end->error, (uint32_t)error);
	gz_store_release(&end->flags, GZ_WORKER_OPEN | GZ_WORKER_DEAD); /* the error is written */
}

void conn_fail(struct conn *conn, int error)
{
	vouch_drop(conn->sockets, conn->vouch);
	conn->vouch = NULL;
	conn->connecting = false;
	gz_store(&conn->shared->worker.error, (uint32_t)error);
	conn_set_flags(conn, GZ_WORKER_OPEN | GZ_WORKER_DEAD);
	conn_notify(conn);
}

void conn_destroy(struct conn *conn)
{
	struct arena *arena = conn->arena;

	if (conn->held)
		pbuf_free(conn->held);
	free(conn->ahead);
	free(conn->trace);
	vouch_drop(conn->sockets, conn->vouch);
	gz_store_release(&conn->shared->worker.flags, 0);
	arena_give_block(arena, conn->rx_block);
	arena_give_block(arena, conn->tx_block);
	arena_give_sock(arena, conn->n);
	quota_settle(arena->user, &conn->charges);
	worker_count(conn->sockets->stack, GZ_COUNT_sockets, (uint64_t)-1);
	if (conn->bucket != UINT32_MAX && !conn->listens)
		worker_count(conn->sockets->stack, GZ_COUNT_connections, (uint64_t)-1);
	arena_put(arena);
	free(conn);
}
