/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <lwip/priv/tcp_priv.h>

#include <gazelle/address.h>
#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/channel.h>
#include <gazelle/worker_page.h>

#include "arena/arena.h"
#include "arena/quota.h"
#include "core/worker.h"
#include "net/address.h"
#include "net/uplink.h"
#include "socket/conn.h"
#include "socket/listener.h"
#include "socket/listener_line.h"
#include "socket/sockets.h"
#include "socket/stream.h"
#include "socket/vouch.h"
#include "tcp/syncookie.h"
#include "tcp/tcp_table.h"

/* Handshakes in progress at a time, which lwIP keeps (syncookie.h has the others); complete ones wait in our queue. */
#define HANDSHAKES 1023u

static uint32_t queue_used(const struct listener_member *member)
{
	uint32_t used = member->head - gz_load_acquire(&member->queue->tail); /* pairs with the pop's cas */

	/* A tail the application forged only harms its own queue: treat it as full. */
	return used <= member->mask + 1 ? used : member->mask + 1;
}

static bool has_room(const struct listener_member *member)
{
	uint32_t used = queue_used(member);

	return used <= member->backlog /* one more than was asked for, as Linux counts */
	       && used + member->deferred_count <= member->mask;
}

/* While every queue is full SYNs are dropped, as the kernel does: the peer tries again. */
static void set_full(struct listener *listener, bool full)
{
	if (full == listener->full)
		return;
	listener->full = full;
	/* Not by tcp_backlog_set, which takes 0 for 1: with no backlog at all lwIP drops every SYN. */
	((struct tcp_pcb_listen *)listener->pcb)->backlog = full ? 0 : HANDSHAKES;
}

static bool any_room(const struct listener *listener)
{
	for (const struct listener_member *m = listener->members; m; m = m->next)
		if (has_room(m))
			return true;
	return false;
}

static void refresh(struct listener_member *member)
{
	if (member->listener->full && has_room(member))
		set_full(member->listener, false);
}

static struct listener_member *next_member(struct listener *listener)
{
	struct listener_member *m = listener->turn;

	do {
		m = m && m->next ? m->next : listener->members;
		if (has_room(m))
			break;
	} while (m != listener->turn && listener->turn);
	listener->turn = m;
	return m;
}

static void enqueue(struct listener_member *member, struct conn *conn)
{
	conn->accept_at = member->head;
	conn->queued_next = NULL;
	if (member->queued_tail)
		member->queued_tail->queued_next = conn;
	else
		member->queued = conn;
	member->queued_tail = conn;
	gz_store(&member->queue->slot[member->head & member->mask], conn->n);
	gz_store_release(&member->queue->head, ++member->head); /* pairs with the pop's acquire: the entry is complete */
	conn_notify(member->sock);
}

static void undefer(struct conn *conn)
{
	struct conn **p = &conn->member->deferred;

	while (*p != conn)
		p = &(*p)->queued_next;
	*p = conn->queued_next;
	conn->member->deferred_count--;
	conn->deferral = NULL;
}

static void deliver(struct conn *conn)
{
	undefer(conn);
	enqueue(conn->member, conn); /* has_room has kept a slot for it */
}

/* It broke off, and no program will ever hear of it. */
static void forget_deferred(struct conn *conn)
{
	struct listener_member *member = conn->member;

	undefer(conn);
	conn->member = NULL;
	conn->orphan = true; /* the caller sees to its end */
	refresh(member);
}

static const struct conn_deferral deferral = { .ready = deliver, .broken = forget_deferred };

static void defer(struct listener_member *member, struct conn *conn, uint32_t seconds)
{
	conn->deferral = &deferral;
	conn->deferred_until_ns = member->listener->sockets->stack->now_ns + seconds * 1000000000ull;
	conn->queued_next = member->deferred;
	member->deferred = conn;
	member->deferred_count++;
}

void listener_deliver_overdue(struct sockets *sockets)
{
	uint64_t now = sockets->stack->now_ns;

	for (struct listener *l = sockets->listeners; l; l = l->next)
		for (struct listener_member *m = l->members; m; m = m->next)
			for (struct conn *conn = m->deferred, *next; conn; conn = next) {
				next = conn->queued_next;
				if (now >= conn->deferred_until_ns)
					deliver(conn);
			}
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct listener *listener = arg;

	if (err != ERR_OK || !pcb || !listener)
		return ERR_VAL;
	syncookie_completed(pcb);
	struct listener_member *member = next_member(listener);
	struct conn *conn;
	if (queue_used(member) + member->deferred_count > member->mask || stream_accept(member->sock, pcb, &conn)) {
		worker_count(listener->sockets->stack, GZ_COUNT_listen_overflow, 1);
		tcp_abort(pcb);
		return ERR_ABRT;
	}
	conn->member = member;
	uint32_t defer_s = gz_load(&member->sock->shared->options.defer_accept_s);
	if (defer_s)
		defer(member, conn, defer_s);
	else
		enqueue(member, conn);
	set_full(listener, !any_room(listener));
	return ERR_OK;
}

static struct listener *find(struct sockets *sockets, const struct vouch *vouch)
{
	for (struct listener *l = sockets->listeners; l; l = l->next)
		if (l->port == vouch->port && l->v6only == vouch->v6only && !memcmp(l->addr, vouch->addr, 16) &&
		    listener_vouch(l)->netns == vouch->netns)
			return l;
	return NULL;
}

/* The member that `vouch` cannot be beside, NULL if there is none. */
static struct listener_member *rival(struct sockets *sockets, const struct vouch *vouch)
{
	for (struct listener *l = sockets->listeners; l; l = l->next)
		for (struct listener_member *m = l->members; m && m->listener->port == vouch->port; m = m->next)
			if (vouch_conflicts(m->sock->vouch, vouch) && !vouch_shares(m->sock->vouch, vouch))
				return m;
	return NULL;
}

/* It has the port no longer. The application's number stays until it lets go of it, and accepts nothing. */
static void expel(struct listener_member *member)
{
	struct conn *sock = member->sock;

	listener_close(member);
	conn_fail(sock, EADDRINUSE);
}

/* Makes room for the socket that the kernel vouches for, unless it vouches for the one that has the port, too. 0 or EADDRINUSE. */
static int settle(struct sockets *sockets, const struct vouch *vouch)
{
	struct listener_member *m;

	while ((m = rival(sockets, vouch))) {
		if (vouch_stands(m->sock->vouch) && !vouch_outranks(sockets, vouch, m->sock->vouch))
			return EADDRINUSE;
		expel(m);
	}
	return 0;
}

void listener_changed(struct sockets *sockets, int fd)
{
	for (struct listener *l = sockets->listeners; l; l = l->next)
		for (struct listener_member *m = l->members; m; m = m->next) {
			if (m->sock->vouch->fd != fd)
				continue;
			if (!vouch_stands(m->sock->vouch))
				expel(m);
			return;
		}
}

struct listener_member *listener_find(struct sockets *sockets, const uint8_t addr[16], uint16_t port, uint64_t netns)
{
	bool loopback = gz_addr_is_loopback(addr);
	struct listener *found = NULL;

	for (struct listener *l = sockets->listeners; l; l = l->next)
		if (l->port == port && gz_addr_serves(l->addr, l->v6only, addr) &&
		    (!loopback || listener_vouch(l)->netns == netns) && (!found || gz_addr_is_any(found->addr)))
			found = l;
	if (!found || vouch_stands(listener_vouch(found)))
		return found ? found->members : NULL;
	expel(found->members);
	return NULL;
}

static struct listener *create(struct sockets *sockets, const struct vouch *vouch)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	struct tcp_pcb *pcb, *lpcb = NULL;

	if (!listener)
		return NULL;
	pcb = tcp_new_ip_type(IPADDR_TYPE_V4);
	if (!pcb)
		goto err_free;
	/* The kernel has arbitrated the port already, so lwIP's own search is skipped. */
	ip_set_option(pcb, SOF_REUSEADDR);
	address_read(vouch->addr, &pcb->local_ip);
	if (!gz_addr_is4(vouch->addr) && gz_addr_is_any(vouch->addr) && !vouch->v6only)
		IP_SET_TYPE(&pcb->local_ip, IPADDR_TYPE_ANY); /* IPv4 as well */
	pcb->local_port = vouch->port;
	tcp_table_enter(0);
	tcp_table_listeners(pcb->local_port);
	TCP_REG(&tcp_bound_pcbs, pcb);
	lpcb = tcp_listen_with_backlog(pcb, HANDSHAKES);
	if (!lpcb)
		tcp_close(pcb);
	tcp_table_leave();
	if (!lpcb)
		goto err_free;
	listener->sockets = sockets;
	listener->pcb = lpcb;
	memcpy(listener->addr, vouch->addr, sizeof(listener->addr));
	listener->v6only = vouch->v6only;
	listener->port = vouch->port;
	listener->page_slot = GZ_LISTENERS_MAX;
	tcp_arg(lpcb, listener);
	tcp_accept(lpcb, on_accept);
	syncookie_watch(lpcb);
	listener->next = sockets->listeners;
	sockets->listeners = listener;
	uplink_hold(IPPROTO_TCP, listener->port);
	return listener;

err_free:
	free(listener);
	return NULL;
}

static void destroy(struct listener *listener)
{
	struct sockets *sockets = listener->sockets;
	struct listener **p = &sockets->listeners;

	while (*p != listener)
		p = &(*p)->next;
	*p = listener->next;
	listener_line_erase(listener);
	uplink_release(IPPROTO_TCP, listener->port);
	tcp_table_enter(0);
	tcp_table_listeners(listener->port);
	tcp_arg(listener->pcb, NULL);
	tcp_close(listener->pcb);
	tcp_table_leave();
	free(listener);
}

static uint32_t backlog_of(uint32_t wish)
{
	return wish > GZ_ACCEPT_SLOTS - HANDSHAKES - 1 ? GZ_ACCEPT_SLOTS - HANDSHAKES - 1 : wish;
}

static int open_queue(struct listener_member *member, struct arena *arena, uint32_t backlog)
{
	uint32_t slots = 2048, order = GZ_BLOCK_ORDER_MIN;

	member->backlog = backlog_of(backlog);
	while (slots < GZ_ACCEPT_SLOTS && slots < member->backlog + HANDSHAKES + 1)
		slots *= 2;
	while (1ul << order < sizeof(struct gz_accept_queue) + slots * sizeof(uint32_t))
		order++;
	member->block = arena_take_block(arena, order);
	if (!member->block)
		return -ENOBUFS;
	member->queue = (struct gz_accept_queue *)arena_block(arena, member->block);
	memset(member->queue, 0, sizeof(*member->queue));
	member->mask = member->queue->mask = slots - 1;
	return 0;
}

int listener_open(struct conn *sock, const struct gz_request *request, uint32_t slot)
{
	struct arena *arena = sock->arena;
	int error = settle(sock->sockets, sock->vouch);
	struct listener_member *member;
	struct listener *listener;

	if (error)
		return error;
	member = calloc(1, sizeof(*member));
	if (!member || !quota_charge(arena->user, &sock->charges, QUOTA_LISTENERS) ||
	    open_queue(member, arena, request->arg))
		goto err_member;
	listener = find(sock->sockets, sock->vouch);
	if (!listener)
		listener = create(sock->sockets, sock->vouch);
	if (!listener)
		goto err_block;
	member->listener = listener;
	member->sock = sock;
	member->wish = request->arg;
	member->next = listener->members;
	listener->members = member;
	if (member->next)
		listener_line_update(listener);
	else
		listener_line_write(listener, slot);
	set_full(listener, false);
	sock->listens = member;
	vouch_watch(sock->sockets, sock->vouch);
	sock->shared->name.local_port = request->port;
	memcpy(sock->shared->name.local_addr, request->addr, 16);
	sock->shared->name.family = request->family;
	sock->shared->name.type = request->type;
	gz_store(&sock->shared->worker.aux[GZ_AUX_ACCEPT_BLOCK], member->block);
	conn_set_flags(sock, GZ_WORKER_OPEN | GZ_WORKER_LISTENING);
	conn_notify(sock);
	return 0;

err_block:
	arena_give_block(arena, member->block);
err_member:
	free(member);
	return ENOBUFS;
}

void listener_set_backlog(struct conn *sock, uint32_t wish)
{
	if (!sock->listens)
		return;
	uint32_t backlog = backlog_of(wish), most = sock->listens->mask + 1 - HANDSHAKES;
	sock->listens->backlog = backlog < most ? backlog : most;
	sock->listens->wish = wish;
	listener_line_update(sock->listens->listener);
	refresh(sock->listens);
}

static void unqueue(struct listener_member *member, struct conn *conn)
{
	struct conn **p = &member->queued, *last = NULL;

	while (*p != conn) {
		last = *p;
		p = &(*p)->queued_next;
	}
	*p = conn->queued_next;
	if (member->queued_tail == conn)
		member->queued_tail = last;
	conn->member = NULL;
}

void listener_claim(struct conn *conn)
{
	struct listener_member *member = conn->member;

	unqueue(member, conn);
	refresh(member);
}

void listener_close(struct listener_member *member)
{
	struct listener *listener = member->listener;
	struct listener_member **p = &listener->members;

	while (*p != member)
		p = &(*p)->next;
	*p = member->next;
	if (listener->turn == member)
		listener->turn = NULL;
	while (member->deferred) {
		struct conn *conn = member->deferred;

		undefer(conn);
		conn->member = NULL;
		stream_reset(conn);
	}
	while (member->queued) {
		struct conn *conn = member->queued;

		unqueue(member, conn);
		stream_reset(conn);
	}
	member->sock->listens = NULL;
	arena_give_block(member->sock->arena, member->block);
	vouch_drop(listener->sockets, member->sock->vouch);
	member->sock->vouch = NULL;
	free(member);
	if (listener->members)
		listener_line_update(listener);
	else
		destroy(listener);
}

bool listener_drop_unclaimed(struct sockets *sockets)
{
	uint64_t now = sockets->stack->now_ns;
	bool waiting = false;

	for (struct listener *l = sockets->listeners; l; l = l->next)
		for (struct listener_member *m = l->members; m; m = m->next) {
			uint32_t tail = gz_load_acquire(&m->queue->tail); /* pairs with the pop's cas */
			struct conn *conn = m->queued, *next;

			for (; conn; conn = next) {
				next = conn->queued_next;
				if ((int32_t)(tail - conn->accept_at) <= 0)
					break; /* not popped yet, nor are the younger ones */
				if (!conn->popped_ns)
					conn->popped_ns = now;
				if (now - conn->popped_ns < CLAIM_GRACE_NS) {
					waiting = true;
					continue;
				}
				unqueue(m, conn);
				stream_reset(conn);
			}
		}
	return waiting;
}

void listener_close_all(struct sockets *sockets)
{
	while (sockets->listeners)
		listener_close(sockets->listeners->members);
}
