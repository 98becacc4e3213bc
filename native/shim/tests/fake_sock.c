/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_worker.h"

void fake_fail(const char *what)
{
	perror(what);
	_exit(1);
}

uint32_t fake_take_block(struct arena *arena, uint32_t order)
{
	uint32_t block = GZ_BLOCK(arena->next_page, order);

	arena->next_page += (1u << order) / GZ_ARENA_PAGE;
	if ((uint64_t)arena->next_page * GZ_ARENA_PAGE > ARENA_BYTES)
		fake_fail("arena full");
	return block;
}

uint8_t *fake_block_at(struct arena *arena, uint32_t block)
{
	return (uint8_t *)arena->shared + GZ_BLOCK_OFFSET(block);
}

uint32_t fake_take_sock(struct arena *arena)
{
	if (arena->next_sock == SOCKS)
		fake_fail("out of sockets");
	return arena->next_sock++;
}

struct sock *fake_open_sock(struct arena *arena, uint32_t n, enum kind kind)
{
	struct sock *s = &arena->sock[n];

	memset(s, 0, sizeof(*s));
	s->kind = kind;
	s->arena = arena;
	s->n = n;
	s->shared = &arena->shared->sock[n];
	return s;
}

void fake_set_flags(struct sock *s, uint32_t flags)
{
	gz_store_release(&s->shared->worker.flags, gz_load(&s->shared->worker.flags) | flags);
}

/* As app_notify of the real worker. */
void fake_notify(struct sock *s)
{
	gz_fence();
	for (int a = 0; a < APPS; a++) {
		struct app *app = &fake.apps[a];

		if (!app->control || app->arena != s->arena || !app->channel || !(s->holders & 1u << a))
			continue;
		uint64_t queues = gz_load(&app->channel->interest[s->n]);
		app->rung |= queues;
		for (; queues; queues &= queues - 1)
			gz_bell_ring(&app->channel->to_app[__builtin_ctzll(queues)], s->n);
	}
}

void fake_die(struct sock *s, int error)
{
	gz_store(&s->shared->worker.error, (uint32_t)error);
	fake_set_flags(s, GZ_WORKER_OPEN | GZ_WORKER_DEAD);
	fake_notify(s);
}

static void name_ends(struct sock *s, uint8_t last, uint16_t port, uint8_t peer_last, uint16_t peer_port)
{
	struct gz_name *name = &s->shared->name;

	name->local_addr[10] = name->local_addr[11] = name->peer_addr[10] = name->peer_addr[11] = 0xff;
	memcpy(name->local_addr + 12, &fake.group->host_addr_be, 4);
	memcpy(name->peer_addr + 12, &fake.group->host_addr_be, 4);
	name->local_addr[15] = last;
	name->peer_addr[15] = peer_last;
	name->local_port = port;
	name->peer_port = peer_port;
	name->family = AF_INET;
	name->type = SOCK_STREAM;
	name->mss = 1448;
}

static void open_fifos(struct sock *s)
{
	gz_store(&s->shared->worker.in_block, fake_take_block(s->arena, START_ORDER));
	gz_store(&s->shared->worker.out_block, fake_take_block(s->arena, START_ORDER));
}

static struct sock *find_listener(uint16_t port)
{
	for (int a = 0; a < APPS; a++) {
		struct arena *arena = fake.apps[a].control ? fake.apps[a].arena : NULL;

		for (uint32_t n = 1; arena && n < arena->next_sock; n++) {
			struct sock *s = &arena->sock[n];

			if (s->kind == LISTENER && s->port == port && s->accept_head - gz_load(&s->queue->tail) < s->backlog)
				return s;
		}
	}
	return NULL;
}

static void push_accept(struct sock *listener, struct sock *s)
{
	gz_store(&listener->queue->slot[listener->accept_head & (ACCEPT_SLOTS - 1)], s->n);
	gz_store_release(&listener->queue->head, ++listener->accept_head);
	fake_notify(listener);
}

void fake_connect(struct sock *s, const struct gz_request *request)
{
	uint16_t port = request->peer_port, own = request->port ? request->port : (uint16_t)(20000 + s->n);
	struct sock *listener = find_listener(port);

	if (port == 9)
		_exit(9);
	fake_set_flags(s, GZ_WORKER_OPEN);
	name_ends(s, ((const uint8_t *)&fake.group->host_addr_be)[3], own, request->peer[15], port);
	if (port == 4)
		fake.refuse_later = s;
	if (port == 2 || port == 4)
		return;
	if (port == 3 || (port != 7 && !listener)) {
		fake_die(s, port == 3 ? ETIMEDOUT : ECONNREFUSED);
		return;
	}
	open_fifos(s);
	fake_set_flags(s, GZ_WORKER_CONNECTED);
	if (port == 7) {
		s->echo = true;
		s->peer = s;
	} else {
		struct sock *other = fake_open_sock(listener->arena, fake_take_sock(listener->arena), STREAM);

		open_fifos(other);
		name_ends(other, request->peer[15], port, ((const uint8_t *)&fake.group->host_addr_be)[3], own);
		other->peer = s;
		s->peer = other;
		fake_set_flags(other, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
		push_accept(listener, other);
	}
	fake_notify(s);
}

void fake_listen(struct sock *s, const struct gz_request *request)
{
	uint32_t block = fake_take_block(s->arena, GZ_BLOCK_ORDER_MIN);

	s->port = request->port;
	s->backlog = request->arg < 1 ? 1 : request->arg > ACCEPT_SLOTS ? ACCEPT_SLOTS : request->arg;
	s->queue = (struct gz_accept_queue *)fake_block_at(s->arena, block);
	s->queue->mask = ACCEPT_SLOTS - 1;
	gz_store(&s->shared->worker.aux[GZ_AUX_ACCEPT_BLOCK], block);
	fake_set_flags(s, GZ_WORKER_OPEN | GZ_WORKER_LISTENING);
	fake_notify(s);
}

static void forget(struct sock *s)
{
	if (s->peer && s->peer != s)
		s->peer->peer = NULL;
	s->peer = NULL;
	s->kind = FREE;
	gz_store_release(&s->shared->worker.flags, 0);
}

/* Bytes from s to its peer, as far as there is room; then what follows the last one. */
static void move(struct sock *s)
{
	struct sock *to = s->peer;
	struct gz_end *app = &s->shared->app, *worker = &s->shared->worker;

	if (s->kind != STREAM || !to)
		return;
	bool shut = gz_load_acquire(&app->flags) & GZ_APP_SHUT_WR;
	uint32_t head = gz_load_acquire(&app->out_head), tail = gz_load(&worker->in_tail);
	struct gz_end *out = &to->shared->worker;
	uint32_t in_size = GZ_BLOCK_SIZE(gz_load(&worker->in_block)), out_size = GZ_BLOCK_SIZE(gz_load(&out->out_block));
	uint32_t used = gz_load(&out->out_head) - gz_load_acquire(&to->shared->app.in_tail);
	uint32_t len = head - tail < out_size - used ? head - tail : out_size - used;

	if (len) {
		static uint8_t buf[1 << 20];

		gz_fifo_copy_out(fake_block_at(s->arena, gz_load(&worker->in_block)), in_size, gz_load(&app->out_base),
		                 tail, buf, len);
		if (!used)
			gz_store(&out->out_base, to->rx_base = gz_load(&out->out_head));
		gz_fifo_copy_in(fake_block_at(to->arena, gz_load(&out->out_block)), out_size, to->rx_base,
		                gz_load(&out->out_head), buf, len);
		gz_store_release(&out->out_head, gz_load(&out->out_head) + len);
		gz_store_release(&worker->in_tail, tail + len);
		fake_notify(to);
		if (gz_load(&app->flags) & GZ_APP_WANT_SPACE)
			fake_notify(s);
	}
	if (len < head - tail && !(gz_load(&out->flags) & GZ_WORKER_WANT_SPACE)) {
		fake_set_flags(to, GZ_WORKER_WANT_SPACE);
		gz_fence();
		if (gz_load(&out->out_head) - gz_load_acquire(&to->shared->app.in_tail) < out_size) {
			move(s); /* room has come meanwhile */
			return;
		}
	} else if (len == head - tail) {
		gz_store(&out->flags, gz_load(&out->flags) & ~GZ_WORKER_WANT_SPACE);
	}
	if (shut && gz_load(&worker->in_tail) == gz_load(&app->out_head) && !(gz_load(&out->flags) & GZ_WORKER_FIN)) {
		fake_set_flags(to, GZ_WORKER_FIN);
		fake_notify(to);
		if (s->orphan)
			forget(s);
	}
	uint32_t serial = gz_load_acquire(&app->aux[GZ_AUX_GROW_SERIAL]);
	if (serial != s->grow_seen && gz_load(&worker->in_tail) == gz_load(&app->out_head)) {
		uint32_t order = 31u - (uint32_t)__builtin_clz(gz_load(&app->aux[GZ_AUX_GROW_SIZE]));

		gz_store(&worker->in_block,
		         fake_take_block(s->arena, order > GZ_BLOCK_ORDER_MAX ? GZ_BLOCK_ORDER_MAX : order));
		s->grow_seen = serial;
		gz_store_release(&worker->aux[GZ_AUX_GROW_SEEN], serial);
		fake_notify(s);
	}
}

void fake_rung(struct sock *s)
{
	if (s->kind == DGRAM) {
		fake_datagrams(s);
		return;
	}
	move(s);
	if (s->peer && s->peer != s)
		move(s->peer);
}

void fake_release(struct sock *s, int a)
{
	struct sock *peer = s->peer;

	if (s->kind == FREE || !(s->holders & 1u << a))
		return;
	s->holders &= ~(1u << a);
	if (s->holders)
		return;
	if (s->kind != STREAM || !peer || peer == s) {
		forget(s);
		return;
	}
	bool unread = gz_load(&s->shared->worker.out_head) != gz_load(&s->shared->app.in_tail);
	if (unread || gz_load(&s->shared->app.flags) & GZ_APP_ABORT) {
		fake_die(peer, ECONNRESET);
		forget(s);
		return;
	}
	gz_or(&s->shared->app.flags, GZ_APP_SHUT_WR);
	s->orphan = true;
	if (gz_load(&peer->shared->worker.flags) & GZ_WORKER_FIN)
		forget(s);
	else
		move(s);
}
