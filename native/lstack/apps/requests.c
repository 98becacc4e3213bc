/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "apps/requests.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include <gazelle/address.h>
#include <gazelle/atomic.h>
#include <gazelle/bell.h>
#include <gazelle/channel.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "apps/app.h"
#include "apps/control.h"
#include "apps/detach.h"
#include "apps/vouch_inbox.h"
#include "core/worker.h"
#include "socket/conn.h"
#include "socket/dgram.h"
#include "socket/listener.h"
#include "socket/stream.h"
#include "socket/vouch.h"

/* Messages that may lie before the one we look for; the socket's buffer holds fewer. */
#define MESSAGES_MAX 1024u

static bool granted(const struct app *app, uint32_t n)
{
	return app->arena->granted[n] == app->slot + 1 && !app->arena->conns[n];
}

/* Whoever has ended has let go of his ports when this returns. */
static void look_for_ended(struct app *asks)
{
	if (asks->leaving)
		return; /* it is being detached itself */
	control_look(asks->apps);
	if (!asks->leaving)
		detach_leaving(asks->apps);
}

/* It was sent before the request was posted, so it is here, or lies in the control socket. NULL: it was not sent. */
static struct vouch *fetch_vouch(struct app *app, uint32_t number)
{
	struct vouch *vouch = vouch_inbox_take(app, number);

	for (uint32_t i = 0; !vouch && i < MESSAGES_MAX && !app->leaving && control_hear(app); i++)
		vouch = vouch_inbox_take(app, number);
	return vouch;
}

/* A socket for one interface only is the kernel's; but for a link-local address that is how it is bound. */
static bool is_elsewhere(const struct gz_group_page *group, const struct vouch *vouch)
{
	return vouch->device && !(gz_addr_is_link_local(vouch->addr) && vouch->device == group->uplink_ifindex);
}

static int check_vouch(const struct apps *apps, const struct vouch *vouch, const struct gz_request *request)
{
	const struct gz_group_page *group = apps->stack->group;
	bool datagram = request->op == GZ_REQUEST_BIND, listens = request->op == GZ_REQUEST_LISTEN;

	if (vouch->type != (datagram ? SOCK_DGRAM : SOCK_STREAM) ||
	    vouch->protocol != (datagram ? IPPROTO_UDP : IPPROTO_TCP) || vouch->domain != request->family ||
	    vouch->port != request->port || !vouch->port || memcmp(vouch->addr, request->addr, 16) ||
	    vouch->v6only != (request->v6only != 0) || vouch->listens != listens || is_elsewhere(group, vouch))
		return EACCES;
	if (!gz_addr_is_any(vouch->addr) && !gz_own_find(group, vouch->addr) &&
	    !(listens && gz_addr_is_loopback(vouch->addr)))
		return EADDRNOTAVAIL;
	if (vouch->netns == apps->sockets.netns || group->foreign_listen)
		return 0;
	/* Another namespace's kernel has no say about ports here. To connect from one is no harm, where no privilege is in it. */
	return listens || (datagram && !request->peer_port) || vouch->port < 1024 ? EADDRNOTAVAIL : 0;
}

/*
 * What was sent for this request, if the kernel says of it what the request says. 0 and *vouch, which is the caller's now; else
 * the errno for the application.
 */
static int take_vouch(struct app *app, const struct gz_request *request, struct vouch **out)
{
	struct vouch *vouch = fetch_vouch(app, request->sock);
	int error = EACCES;

	if (!vouch)
		return EACCES;
	if (vouch->fd < 0)
		error = vouch->worthless ? EACCES : ENOBUFS;
	else if (vouch_look(vouch))
		error = check_vouch(app->apps, vouch, request);
	if (error)
		vouch_drop(&app->apps->sockets, vouch);
	else
		*out = vouch;
	return error;
}

/* The entry of a number from the stock, held by the process. NULL: no memory, as its end says. */
static struct conn *new_conn(struct app *app, uint32_t n)
{
	struct conn *conn = conn_create(&app->apps->sockets, app->arena, n);

	if (conn)
		app_hold(app, conn);
	else
		conn_refuse(app->arena, n, ENOMEM);
	return conn;
}

static void serve_listen(struct app *app, const struct gz_request *request)
{
	struct conn *conn = new_conn(app, request->sock);
	int error;

	if (!conn)
		return;
	error = take_vouch(app, request, &conn->vouch);
	if (!error)
		error = listener_open(conn, request, app->slot);
	if (error)
		conn_fail(conn, error);
}

static void serve_connect(struct app *app, const struct gz_request *request)
{
	struct conn *conn = new_conn(app, request->sock);
	struct vouch *vouch = NULL;
	int error = 0;

	if (!conn)
		return;
	if (request->family == AF_UNSPEC)
		error = ECONNRESET;
	else if (request->port)
		error = take_vouch(app, request, &vouch);
	/* The connection needs no more of it: only its peer can reach it. */
	vouch_drop(&app->apps->sockets, vouch);
	if (!error)
		error = stream_connect(conn, request);
	if (error)
		conn_fail(conn, error);
}

static void serve_bind(struct app *app, const struct gz_request *request)
{
	struct conn *conn = app->arena->conns[request->sock];
	int error;

	if (!conn) {
		conn = new_conn(app, request->sock);
		if (!conn)
			return;
		error = take_vouch(app, request, &conn->vouch);
		if (!error)
			error = dgram_bind(conn, request);
		if (error)
			conn_fail(conn, error);
	}
	if (conn->udp) /* else it is a connection, or one that has failed */
		dgram_set_peer(conn, request);
}

static void serve_claim(struct app *app, uint32_t n)
{
	struct conn *conn = app->arena->conns[n];

	if (!conn || !conn->member)
		return; /* reset meanwhile with its listener, or nonsense: either way not the process's to hold */
	listener_claim(conn);
	app_hold(app, conn);
	/* Between the pop and this claim what arrived rang no bell, and what the application wrote was not looked at. */
	app_notify(conn->arena, n);
	stream_rung(conn);
}

static void serve(struct app *app, const struct gz_request *request)
{
	uint32_t n = request->sock;

	if (request->op == GZ_REQUEST_LOOK) {
		look_for_ended(app);
		return;
	}
	if (!n || n >= GZ_SOCKS_MAX) {
		app_detach_later(app, "socket number out of range");
		return;
	}
	switch (request->op) {
	case GZ_REQUEST_LISTEN:
		if (granted(app, n))
			serve_listen(app, request);
		else
			app_detach_later(app, "listen on a number not granted");
		break;
	case GZ_REQUEST_CONNECT:
		if (granted(app, n))
			serve_connect(app, request);
		else
			app_detach_later(app, "connect on a number not granted");
		break;
	case GZ_REQUEST_BIND:
		if (granted(app, n) || app_holds(app, n))
			serve_bind(app, request);
		else
			app_detach_later(app, "bind on a number not granted");
		break;
	case GZ_REQUEST_BACKLOG:
		if (app_holds(app, n))
			listener_set_backlog(app->arena->conns[n], request->arg);
		break;
	case GZ_REQUEST_CLAIM:
		serve_claim(app, n);
		break;
	case GZ_REQUEST_RELEASE:
		app_let_go(app, n);
		break;
	default:
		app_detach_later(app, "unknown request");
	}
}

/* How many requests wait; more than the ring holds is nonsense. */
static uint32_t requests_waiting(const struct app *app)
{
	/* Pairs with the application's release: slots are written. */
	return gz_load_acquire(&app->channel->requests.head) - app->request_tail;
}

static void serve_next(struct app *app)
{
	struct gz_request_ring *ring = &app->channel->requests;
	struct gz_request request;

	memcpy(&request, &ring->slot[app->request_tail % GZ_REQUESTS], sizeof(request));
	__asm__ __volatile__("" : : "g"(&request) : "memory"); /* our copy is read from here on, not theirs */
	app->request_tail++;
	worker_count(app->apps->stack, GZ_COUNT_requests, 1);
	serve(app, &request);
	/* Pairs with the producer's acquire: the slot is free, and what was asked for is done. */
	gz_store_release(&ring->tail, app->request_tail);
}

/* Requests in their order, at most rpc_number per turn. */
static void serve_requests(struct app *app)
{
	uint32_t waiting = requests_waiting(app), budget = app->apps->stack->group->rpc_number;

	if (waiting > GZ_REQUESTS) {
		app_detach_later(app, "impossible request index");
		return;
	}
	for (uint32_t i = 0; i < waiting && i < budget && !app->leaving; i++)
		serve_next(app);
	if (waiting > budget)
		gz_bell_ring(&app->channel->to_worker, 0);
	app_grant(app);
}

static void on_last_bell(void *ctx, uint32_t n)
{
	struct app *app = ctx;

	if (n && app_holds(app, n) && !app->arena->conns[n]->listens)
		app_rung(app->arena->conns[n]);
}

void requests_finish(struct app *app)
{
	uint32_t waiting = app->channel && !app->leave_why ? requests_waiting(app) : 0;

	for (uint32_t i = 0; i < waiting && waiting <= GZ_REQUESTS; i++)
		serve_next(app);
	/* What it wrote last: another process may hold the connection, so that letting go of it does not send that. */
	if (app->channel && !app->leave_why)
		(void)gz_bell_take(&app->channel->to_worker, GZ_SOCKS_MAX, on_last_bell, app);
}

static void on_bell(void *ctx, uint32_t n)
{
	struct app *app = ctx;

	if (app->leaving)
		return;
	if (!n)
		serve_requests(app);
	else if (app_holds(app, n) && !app->arena->conns[n]->listens)
		app_rung(app->arena->conns[n]);
}

uint32_t requests_serve(struct app *app, uint32_t budget)
{
	return gz_bell_take(&app->channel->to_worker, budget, on_bell, app);
}
