/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gazelle/wake.h>

#include "attach.h"
#include "epoll.h"
#include "eventq.h"
#include "fdtable.h"
#include "link.h"
#include "listen.h"
#include "pair.h"
#include "real.h"
#include "route.h"
#include "shim.h"
#include "sock.h"

#define ANSWER_PATIENCE_NS 1000000000ull
#define BLOCK_ORDER 18u
#define HOLDERS 32u
#define WAITING_MAX \
	65536u /* arrivals of a listener: what a program that pushes one number again and again can cost us */
_Static_assert(1u << BLOCK_ORDER == GZ_PAIR_BLOCK, "a block's order is its size");

/* Where the other program listens, and the line of a worker's page that says so: while it stands, no worker is asked. */
struct served {
	uint8_t addr[16];
	uint16_t port;
	uint32_t worker, line, port_owner;
};

#define SERVED 8u

/* What only pairs have; struct link is common to both. */
struct pair {
	struct gz_pair *shared;
	uint32_t side;
	uint32_t holder;               /* our bit in GZ_AUX_HOLDERS of our side's ends */
	int queue_fd[GZ_EVENT_QUEUES]; /* what wakes the other side's queues; 0 = not told yet */
	struct served served[SERVED];
	uint32_t served_next;
	uint32_t recent[64], recents; /* numbers closed lately: warm, and likely free again */
	uint32_t next_number;
	uint32_t family[HOLDERS]; /* attach id + 1 of the child that has this bit; 0 = nobody */
	uint32_t child_bit;       /* between before and after a fork */
};

static _Atomic uint64_t listening; /* event queues that want to hear of arrivals */
static uint32_t generation;        /* forks between the program's first process and this one */

/* ------------------------------------------------------------------ who listens where */

static bool is_loopback4(uint32_t be)
{
	return (ntohl(be) >> 24) == 127;
}

static bool same_host(const struct endpoint *to)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	uint32_t be = endpoint_ip4_be(to);

	return !memcmp(to->addr, mapped, 12) && (is_loopback4(be) || be == shim.group->host_addr_be);
}

static bool line_serves(const struct gz_listener *line, uint32_t be, uint16_t port)
{
	/* The acquire pairs with the worker's release of the line: its address is written. */
	return gz_load_acquire(&line->port_owner) >> 16 == port && port && (!line->addr_be || line->addr_be == be);
}

/* The first line of a worker's page that names a listener there. */
static bool find_line(const struct endpoint *to, struct served *found)
{
	uint32_t be = endpoint_ip4_be(to);

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct link *link = gz_load_acquire(&shim.links[i]);

		if (!link || !link->channel)
			continue;
		for (uint32_t l = 0; l < GZ_LISTENERS_MAX; l++) {
			const struct gz_listener *line = &link->page->listeners[l];

			if (!line_serves(line, be, to->port))
				continue;
			memcpy(found->addr, to->addr, 16);
			found->port = to->port;
			found->worker = i;
			found->line = l;
			found->port_owner = gz_load(&line->port_owner);
			return true;
		}
	}
	return false;
}

bool pair_listens(const struct endpoint *to)
{
	struct served found;

	return same_host(to) && find_line(to, &found);
}

static bool still_stands(const struct served *served)
{
	struct link *link = gz_load_acquire(&shim.links[served->worker]);

	if (!link)
		return true; /* the worker is away; pairs go on without */
	return gz_load(&link->page->listeners[served->line].port_owner) == served->port_owner;
}

static struct link *known_pair(const struct endpoint *to)
{
	for (uint32_t i = GZ_WORKERS_MAX; i < shim.links_end; i++) {
		struct link *link = gz_load_acquire(&shim.links[i]);

		if (!link || gz_load(&link->dead) || link->pair->side)
			continue;
		for (uint32_t k = 0; k < SERVED; k++) {
			struct served *served = &link->pair->served[k];

			if (served->port == to->port && !memcmp(served->addr, to->addr, 16) && still_stands(served))
				return link;
		}
	}
	return NULL;
}

/* ------------------------------------------------------------------ making a pair */

static struct link *new_link(uint32_t *slot)
{
	struct link *link;

	for (*slot = GZ_WORKERS_MAX; *slot < SHIM_LINKS; ++*slot)
		if (!gz_load(&shim.links[*slot]))
			break;
	if (*slot == SHIM_LINKS)
		return NULL;
	link = attach_take_link(true);
	if (link && !link->pair)
		link->pair = calloc(1, sizeof(*link->pair));
	return link && link->pair ? link : NULL;
}

static void start(struct link *link, const struct gz_message *message)
{
	struct pair *pair = link->pair;

	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++)
		if (pair->queue_fd[k] > 0)
			fd_own_close(&pair->queue_fd[k]);
	memset(pair->queue_fd, 0, sizeof(pair->queue_fd));
	memset(pair->served, 0, sizeof(pair->served));
	memset(pair->family, 0, sizeof(pair->family));
	pair->recents = pair->served_next = 0;
	pair->next_number = 1;
	pair->side = message->number & 1;
	pair->holder = 0;
	gz_store(&pair->shared->side[pair->side].interest[0], gz_load(&listening));
}

void pair_arrived(const struct gz_message *message, int *fds, int count)
{
	struct link *link;
	uint32_t slot;

	if (message->status || count != GZ_PAIRED_FDS)
		goto close_fds;
	link = new_link(&slot);
	if (!link || attach_map_pair(link, fds[GZ_PAIRED_MEMORY]))
		goto close_fds;
	link->pair->shared = (struct gz_pair *)link->arena;
	start(link, message);
	link->slot = slot;
	fd_own(fds[GZ_PAIRED_CONTROL], &link->control_fd);
	REAL(close)(fds[GZ_PAIRED_MEMORY]);
	attach_publish(link);
	/* Connections may have been pushed before we could be rung: whoever holds a listener looks now. */
	pair_take_arrivals();
	if (link->pair->side) {
		for (struct sock *s = shim.listeners; s; s = s->listener->next)
			epoll_activate(s);
		eventq_wake_all();
	}
	return;

close_fds:
	while (count > 0)
		REAL(close)(fds[--count]);
}

/* Asks a worker for an introduction and waits for its answer. shim.lock held. */
static struct link *ask(const struct served *where)
{
	struct link *worker = gz_load(&shim.links[where->worker]), *link = NULL;
	struct gz_message message = { .kind = GZ_MESSAGE_PAIR, .port = where->port };
	uint64_t until = now_ns() + ANSWER_PATIENCE_NS;
	int fds[GZ_WELCOME_FDS], count, got;

	if (!worker)
		return NULL;
	memcpy(message.addr, where->addr, sizeof(message.addr));
	lock_take(&worker->post);
	got = attach_send(worker->control_fd, &message, -1);
	lock_give(&worker->post);
	while (!got) {
		got = attach_receive(worker->control_fd, &message, fds, &count);
		if (got < 0)
			break;
		if (got) {
			bool ours = message.kind == GZ_MESSAGE_PAIRED && message.number == 0;
			uint64_t last = shim.links_serial;

			got = 0;
			attach_said(worker, &message, fds, count);
			if (!ours)
				continue;
			for (uint32_t i = GZ_WORKERS_MAX; i < shim.links_end; i++) {
				struct link *l = gz_load(&shim.links[i]);

				if (l && l->serial > last)
					link = l;
			}
			break;
		}
		uint64_t now = now_ns();
		if (now >= until)
			break;
		struct pollfd wait = { .fd = worker->control_fd, .events = POLLIN };
		(void)REAL(poll)(&wait, 1, (int)((until - now) / 1000000ull) + 1);
	}
	if (link && !link->pair->side) {
		link->pair->served[link->pair->served_next++ % SERVED] = *where;
		return link;
	}
	return NULL;
}

/* ------------------------------------------------------------------ entries */

static struct gz_pair_sock *entry(const struct link *link, uint32_t n)
{
	return &link->pair->shared->sock[n % GZ_PAIR_SOCKS];
}

static uint32_t block(uint32_t n, uint32_t end)
{
	return GZ_BLOCK((GZ_PAIR_HEADER + (2ull * n + end) * GZ_PAIR_BLOCK) / GZ_ARENA_PAGE, BLOCK_ORDER);
}

struct gz_sock *pair_entry(struct link *link, uint32_t n, struct gz_end **me, struct gz_end **peer)
{
	struct gz_pair_sock *e = entry(link, n);
	uint32_t side = link->pair->side;

	*me = &e->end[side];
	*peer = &e->end[!side];
	/* Shifted so that options and name of our view stand where struct gz_sock has them; its ends are not used. */
	return (struct gz_sock *)((char *)&e->view[side] - offsetof(struct gz_sock, options));
}

/* Side 0's: neither end exists any more. The acquires pair with the releases that closed them. */
static bool is_free(const struct link *link, uint32_t n)
{
	const struct gz_pair_sock *e = entry(link, n);

	return !gz_load(&link->socks[n]) && !(gz_load_acquire(&e->end[0].flags) & GZ_WORKER_OPEN) &&
	       !(gz_load_acquire(&e->end[1].flags) & GZ_WORKER_OPEN);
}

static uint32_t take_number(struct link *link)
{
	struct pair *pair = link->pair;

	while (pair->recents) {
		uint32_t n = pair->recent[--pair->recents];

		if (is_free(link, n))
			return n;
	}
	for (uint32_t tries = 1; tries < GZ_PAIR_SOCKS; tries++) {
		uint32_t n = pair->next_number;

		pair->next_number = n + 1 < GZ_PAIR_SOCKS ? n + 1 : 1;
		if (is_free(link, n))
			return n;
	}
	return 0;
}

static void write_view(struct gz_name *name, const struct endpoint *local, const struct endpoint *peer)
{
	memset(name, 0, sizeof(*name));
	memcpy(name->local_addr, local->addr, 16);
	memcpy(name->peer_addr, peer->addr, 16);
	name->local_port = local->port;
	name->peer_port = peer->port;
	name->family = AF_INET;
	name->type = SOCK_STREAM;
	name->mss = 32768; /* what the kernel's loopback would say */
}

static void set_up(struct link *link, uint32_t n, const struct endpoint *local, const struct endpoint *to)
{
	struct gz_pair_sock *e = entry(link, n);

	memset(e->end, 0, sizeof(e->end));
	for (uint32_t i = 0; i < 2; i++) {
		gz_store(&e->end[i].out_block, block(n, i));
		gz_store(&e->end[i].in_block, block(n, !i));
		gz_store(&e->end[i].aux[GZ_AUX_HOLDERS], 1);
		gz_store(&e->end[i].flags, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
	}
	write_view(&e->view[0].name, local, to);
	write_view(&e->view[1].name, to, local);
	gz_store(&link->pair->shared->side[0].interest[n], 0);
	gz_store(&link->pair->shared->side[1].interest[n], 0);
}

/* Pushes n to the other side's accept ring. False: its backlog is full. */
static bool push(struct link *link, uint32_t n)
{
	struct gz_pair_side *to = &link->pair->shared->side[1];
	uint32_t head = gz_load(&to->accept_head);

	if (head - gz_load_acquire(&to->accept_tail) >= GZ_PAIR_SOCKS) /* pairs with the release in pair_take_arrivals */
		return false;
	gz_store(&to->accept[head % GZ_PAIR_SOCKS], n);
	gz_store_release(&to->accept_head, head + 1); /* pairs with its acquire: entry and slot are written */
	return true;
}

/* The pair with the program that listens there, made if there is none; NULL: not this way. shim.lock held. */
static struct link *pair_to(const struct endpoint *to)
{
	struct link *link = known_pair(to);
	struct served where;

	return !link && find_line(to, &where) ? ask(&where) : link;
}

bool pair_reaches(const struct endpoint *to)
{
	struct link *link;
	uint32_t n = 0;

	if (!same_host(to))
		return false;
	lock_take(&shim.lock);
	link = pair_to(to);
	if (link)
		n = take_number(link);
	if (n)
		link->pair->recent[link->pair->recents++] = n;
	lock_give(&shim.lock);
	return n;
}

int pair_connect(const struct endpoint *local, const struct endpoint *to, struct sock *s, struct link **link, uint32_t *n)
{
	int err = 1;

	if (!same_host(to))
		return 1;
	lock_take(&shim.lock);
	*link = pair_to(to);
	if (!*link)
		goto out;
	*n = take_number(*link);
	if (!*n)
		goto out;
	set_up(*link, *n, local, to);
	link_hold(*link, *n, s);
	if (!push(*link, *n)) {
		gz_store_release(&entry(*link, *n)->end[1].flags, 0);
		pair_let_go(*link, *n);
		goto out;
	}
	err = 0;
out:
	lock_give(&shim.lock);
	if (!err)
		pair_ring(*link, 0);
	return err;
}

/* ------------------------------------------------------------------ listening */

static struct listener *listener_of(const struct gz_name *name)
{
	for (struct sock *s = shim.listeners; s; s = s->listener->next)
		if (s->local.port == name->local_port && !s->listener->shut)
			return s->listener;
	return NULL;
}

static void refuse(struct link *link, uint32_t n, int error)
{
	struct gz_end *me = &entry(link, n)->end[link->pair->side];

	gz_store(&me->error, (uint32_t)error);
	gz_store_release(&me->flags, GZ_WORKER_DEAD); /* not OPEN: the number is free once side 0 lets go */
	pair_ring(link, n);
}

static void take_from(struct link *link)
{
	struct gz_pair_side *mine = &link->pair->shared->side[1];
	uint32_t tail = gz_load(&mine->accept_tail), head = gz_load_acquire(&mine->accept_head);

	if (head - tail > GZ_PAIR_SOCKS)
		tail = head; /* nonsense: nothing of it is believed */
	for (; tail != head; tail++) {
		uint32_t n = gz_load(&mine->accept[tail % GZ_PAIR_SOCKS]) % GZ_PAIR_SOCKS;
		struct listener *listener = n ? listener_of(&entry(link, n)->view[1].name) : NULL;
		bool room = listener && gz_load(&listener->waiting_count) < WAITING_MAX;
		struct arrival *arrival = room ? malloc(sizeof(*arrival)) : NULL;

		if (!n || gz_load(&link->socks[n]))
			continue;
		if (!arrival) {
			refuse(link, n, listener ? ECONNRESET : ECONNREFUSED);
			continue;
		}
		arrival->link = link;
		arrival->serial = link->serial;
		arrival->n = n;
		arrival->generation = generation;
		arrival->next = NULL;
		*listener->waiting_tail = arrival;
		listener->waiting_tail = &arrival->next;
		gz_add(&listener->arrived, 1);
		gz_add(&listener->waiting_count, 1);
	}
	gz_store_release(&mine->accept_tail, tail); /* pairs with the acquire in push */
}

void pair_take_arrivals(void)
{
	for (uint32_t i = GZ_WORKERS_MAX; i < shim.links_end; i++) {
		struct link *link = gz_load_acquire(&shim.links[i]);

		if (!link || !link->pair->side)
			continue;
		struct gz_pair_side *mine = &link->pair->shared->side[1];
		if (gz_load_acquire(&mine->accept_head) == gz_load(&mine->accept_tail))
			continue;
		lock_take(&shim.arrivals);
		take_from(link);
		lock_give(&shim.arrivals);
	}
}

/*
 * Several processes may have n in their lists, copied by a fork: one of them gets it. It is held by the first process of the
 * family until then; the new bit comes before that one goes, so that the end is never without a holder.
 */
static bool claim(struct link *link, uint32_t n)
{
	struct gz_end *me = &entry(link, n)->end[1];

	if (gz_exchange(&me->aux[GZ_AUX_CLAIMED], 1))
		return false;
	if (link->pair->holder) {
		gz_or(&me->aux[GZ_AUX_HOLDERS], 1u << link->pair->holder);
		gz_and(&me->aux[GZ_AUX_HOLDERS], ~1u);
	}
	return true;
}

/* `inherited`: also what waited when this process was forked off. */
static bool take_waiting(struct listener *listener, bool inherited, struct link **link, uint32_t *n)
{
	struct arrival *arrival = NULL;

	while (gz_load(&listener->waiting_count)) {
		lock_take(&shim.arrivals);
		arrival = listener->waiting;
		if (arrival) {
			listener->waiting = arrival->next;
			if (!listener->waiting)
				listener->waiting_tail = &listener->waiting;
			gz_add(&listener->waiting_count, (uint32_t)-1);
		}
		lock_give(&shim.arrivals);
		if (!arrival)
			return false;
		bool good = arrival->link->serial == arrival->serial && (inherited || arrival->generation == generation);

		*link = arrival->link;
		*n = arrival->n;
		free(arrival);
		if (good && claim(*link, *n))
			return true;
	}
	return false;
}

bool pair_accept(struct listener *listener, struct link **link, uint32_t *n)
{
	return take_waiting(listener, true, link, n);
}

void pair_refuse_waiting(struct listener *listener)
{
	struct link *link;
	uint32_t n;

	/* A child closes its copy of the listener: what waited before the fork still waits for the parent. */
	while (take_waiting(listener, false, &link, &n))
		refuse(link, n, ECONNRESET);
}

void pair_listen_interest(uint32_t queue)
{
	gz_or(&listening, 1ull << queue);
	for (uint32_t i = GZ_WORKERS_MAX; i < shim.links_end; i++) {
		struct link *link = gz_load_acquire(&shim.links[i]);

		if (link && link->pair->side)
			gz_or(&link->pair->shared->side[1].interest[0], 1ull << queue);
	}
	gz_fence(); /* pairs with the fence in pair_ring */
}

/* ------------------------------------------------------------------ ringing */

/* The other side's queue k sleeps: wakes it, once. It has told how before, at the latest in its control socket. */
static void wake(struct link *link, struct gz_bell *bell, uint32_t k)
{
	if (!gz_exchange(&bell->asleep, 0))
		return;
	if (link->pair->queue_fd[k] <= 0) {
		lock_take(&link->post);
		attach_hear(link);
		lock_give(&link->post);
	}
	if (link->pair->queue_fd[k] > 0)
		(void)REAL(send)(link->pair->queue_fd[k], "", 1, GZ_WAKE_FLAGS);
}

void pair_ring(struct link *link, uint32_t n)
{
	struct gz_pair_side *to = &link->pair->shared->side[!link->pair->side];
	uint64_t queues;

	gz_fence(); /* pairs with the other side's, between setting interest and looking at the level */
	queues = gz_load(&to->interest[n]);
	for (uint64_t q = queues; q; q &= q - 1)
		gz_bell_ring(&to->to[__builtin_ctzll(q)], n);
	gz_fence(); /* pairs with the sleeper's, between declaring and looking again */
	for (uint64_t q = queues; q; q &= q - 1) {
		uint32_t k = (uint32_t)__builtin_ctzll(q);

		if (__builtin_expect(gz_load(&to->to[k].asleep), 0))
			wake(link, &to->to[k], k);
	}
}

struct gz_bell *pair_bell(struct link *link, uint32_t queue)
{
	return &link->pair->shared->side[link->pair->side].to[queue];
}

_Atomic uint64_t *pair_interest(struct link *link, uint32_t n)
{
	return &link->pair->shared->side[link->pair->side].interest[n % GZ_PAIR_SOCKS];
}

/* So that we send a byte to nothing but a socket that is there to wake somebody. */
static bool can_wake(int fd)
{
	int domain = -1, type = -1;
	socklen_t len = sizeof(int);

	return !REAL(getsockopt)(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) &&
	       !REAL(getsockopt)(fd, SOL_SOCKET, SO_TYPE, &type, &len) && domain == GZ_WAKE_DOMAIN && type == GZ_WAKE_TYPE;
}

void pair_message(struct link *link, const struct gz_message *message, int *fds, int count)
{
	if (message->kind == GZ_MESSAGE_EVENT_QUEUE && count == 1 && message->number < GZ_EVENT_QUEUES && can_wake(fds[0])) {
		int *slot = &link->pair->queue_fd[message->number];

		if (*slot > 0)
			fd_own_close(slot);
		fd_own(fds[0], slot);
		return;
	}
	while (count > 0)
		REAL(close)(fds[--count]);
}

/* ------------------------------------------------------------------ closing */

/* Takes `holders` away from our end of n; the last ones close it: FIN, or a reset if data is unread or asked for. */
static void drop(struct link *link, uint32_t n, uint32_t holders)
{
	struct gz_end *me = &entry(link, n)->end[link->pair->side], *peer = &entry(link, n)->end[!link->pair->side];
	uint32_t had = gz_and(&me->aux[GZ_AUX_HOLDERS], ~holders), flags;

	if (!(had & holders) || had & ~holders)
		return;
	flags = gz_load(&me->flags) & ~(uint32_t)GZ_WORKER_OPEN;
	if (gz_load_acquire(&peer->out_head) != gz_load(&me->in_tail) || flags & GZ_APP_ABORT) {
		gz_store(&me->error, ECONNRESET);
		flags |= GZ_WORKER_DEAD;
	} else {
		flags |= GZ_WORKER_FIN;
	}
	gz_store_release(&me->flags, flags); /* the error is written, and so is every byte before the FIN */
	pair_ring(link, n);
}

void pair_let_go(struct link *link, uint32_t n)
{
	struct pair *pair = link->pair;

	gz_store(pair_interest(link, n), 0);
	drop(link, n, 1u << pair->holder);
	if (!pair->side && pair->recents < sizeof(pair->recent) / sizeof(pair->recent[0]))
		pair->recent[pair->recents++] = n;
}

bool pair_nobody_reads(const struct sock *s)
{
	uint32_t flags = gz_load(&s->peer->flags);

	return flags & GZ_WORKER_FIN && (!(flags & GZ_WORKER_OPEN) || flags & GZ_APP_SHUT_RD);
}

uint32_t pair_orphan_flags(const struct sock *s)
{
	/* What it had not read when it died makes it a reset; what it had sent can still be read. */
	bool consumed = gz_load(&s->me->out_head) == gz_load_acquire(&s->peer->in_tail);

	return consumed ? GZ_WORKER_FIN : GZ_WORKER_DEAD;
}

/* ------------------------------------------------------------------ forks */

static void each_held(struct link *link, void (*fn)(struct gz_end *end, uint32_t bit), uint32_t bit)
{
	for (uint32_t n = 1; n < GZ_PAIR_SOCKS; n++)
		if (gz_load(&link->socks[n]))
			fn(&entry(link, n)->end[link->pair->side], bit);
}

static void give_bit(struct gz_end *end, uint32_t bit)
{
	gz_or(&end->aux[GZ_AUX_HOLDERS], 1u << bit);
}

#define PAIR_EACH(link, i)                                         \
	for (uint32_t i = GZ_WORKERS_MAX; i < shim.links_end; i++) \
		for (struct link *link = gz_load_acquire(&shim.links[i]); link; link = NULL)

void pair_before_fork(void)
{
	PAIR_EACH(link, i)
	{
		struct pair *pair = link->pair;

		lock_take(&link->post);
		pair->child_bit = 0;
		for (uint32_t bit = 1; bit < HOLDERS && !pair->child_bit; bit++)
			if (bit != pair->holder && !pair->family[bit])
				pair->child_bit = bit;
		if (pair->child_bit)
			each_held(link, give_bit, pair->child_bit);
	}
}

void pair_after_fork_in_parent(uint32_t child_attach_id)
{
	PAIR_EACH(link, i)
	{
		if (link->pair->child_bit)
			link->pair->family[link->pair->child_bit] = child_attach_id + 1;
		lock_give(&link->post);
	}
}

void pair_after_fork_in_child(void)
{
	shim.arrivals.word = 0;
	generation++;
	PAIR_EACH(link, i)
	{
		link->post.word = 0;
		link->pair->holder = link->pair->child_bit; /* 0, the parent's own, never: then nothing is ours */
		gz_store(&link->announced, 0);
		if (!link->pair->holder)
			attach_lost(link);
	}
}

void pair_family_lost(uint32_t attach_id)
{
	PAIR_EACH(link, i)
	{
		for (uint32_t bit = 1; bit < HOLDERS; bit++) {
			if (link->pair->family[bit] != attach_id + 1)
				continue;
			link->pair->family[bit] = 0;
			for (uint32_t n = 1; n < GZ_PAIR_SOCKS; n++)
				if (gz_load(&entry(link, n)->end[link->pair->side].flags) & GZ_WORKER_OPEN)
					drop(link, n, 1u << bit);
		}
	}
}
