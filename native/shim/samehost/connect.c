/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "samehost/connect.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include <gazelle/address.h>
#include <gazelle/stamp.h>

#include "core/real.h"
#include "core/sock.h"
#include "samehost/accept.h"
#include "samehost/introduce.h"
#include "samehost/pair.h"
#include "samehost/served.h"
#include "worker/answer.h"
#include "worker/control.h"

#define ANSWER_PATIENCE_NS 1000000000ull

static struct attachment *known_pair(uint64_t netns, const struct endpoint *to, struct served *where)
{
	PAIR_EACH(a, i)
	{
		if (!introduce_is_ours(a))
			continue;
		for (uint32_t k = 0; k < PAIR_SERVED; k++) {
			*where = a->pair->served[k];
			if (where->port == to->port && !memcmp(where->addr, to->addr, 16) &&
			    served_reached(where->netns, netns, to) && served_stands(where))
				return a;
		}
	}
	return NULL;
}

static void remember(struct attachment *a, const struct served *where)
{
	a->pair->served[a->pair->served_next++ % PAIR_SERVED] = *where;
}

/* We may know the program that listens there by another of its listeners. */
static struct attachment *pair_to_program(const struct served *where)
{
	PAIR_EACH(a, i)
	{
		if (!introduce_is_ours(a) || a->pair->program != where->program || a->pair->at != where->at)
			continue;
		remember(a, where);
		return a;
	}
	return NULL;
}

static struct attachment *younger_than(uint64_t serial)
{
	PAIR_EACH(a, i)
	{
		if (introduce_is_ours(a) && a->serial > serial)
			return a;
	}
	return NULL;
}

/*
 * Asks a worker for an introduction and waits for its answer, and for the sockets to all members that may accept: a member can
 * only say over its socket how it is woken. shim.lock held.
 */
static struct attachment *ask(const struct pair_caller *from, const struct served *where)
{
	struct attachment *worker = gz_load(&shim.attachments[where->worker]), *a;
	struct gz_message message = { .kind = GZ_MESSAGE_PAIR, .port = where->port };
	uint64_t last = shim.attachments_serial, left;
	struct patience patience;
	int fds[GZ_WELCOME_FDS], count, got, more = -1; /* member sockets that must still come; < 0: not answered */

	if (!worker)
		return NULL;
	memcpy(message.addr, where->addr, sizeof(message.addr));
	patience_begin(&patience, ANSWER_PATIENCE_NS);
	lock_take(&worker->post);
	got = control_send(worker->control_fd, &message, from->fd);
	lock_give(&worker->post);
	while (!got && more) {
		got = control_receive(worker->control_fd, &message, fds, &count);
		if (got < 0)
			break;
		if (got) {
			if (message.kind == GZ_MESSAGE_PAIRED && message.number == 0)
				more = message.more_members;
			else if (message.kind == GZ_MESSAGE_MEMBER && more > 0)
				more--;
			got = 0;
			answer_unasked(worker, &message, fds, count);
			continue;
		}
		left = patience_left(&patience, worker->control_fd);
		if (!left)
			break;
		struct pollfd wait = { .fd = worker->control_fd, .events = POLLIN };
		(void)REAL(poll)(&wait, 1, (int)(left / 1000000ull) + 1);
	}
	a = younger_than(last);
	if (!a)
		return NULL;
	a->pair->program = where->program;
	a->pair->at = where->at;
	remember(a, where);
	return a;
}

/* The pair with the program that listens there, made if there is none; NULL: not this way. shim.lock held. */
static struct attachment *pair_to(const struct pair_caller *from, const struct endpoint *to, struct served *where)
{
	struct attachment *a = known_pair(from->netns, to, where);

	if (a || !served_find(from->netns, to, where))
		return a;
	a = pair_to_program(where);
	return a ? a : ask(from, where);
}

/* Neither end exists any more. The acquires pair with the releases that closed them. */
static bool is_free(const struct attachment *a, uint32_t n)
{
	const struct gz_pair_sock *e = pair_sock(a, n);

	return !gz_load(&a->socks[n]) && !(gz_load_acquire(&e->end[0].flags) & GZ_WORKER_OPEN) &&
	       !(gz_load_acquire(&e->end[1].flags) & GZ_WORKER_OPEN);
}

static uint32_t take_number(struct attachment *a)
{
	struct pair *pair = a->pair;
	uint32_t recent = 0;

	lock_take(&a->post);
	while (!recent && pair->recents) {
		recent = pair->recent[--pair->recents];
		if (!is_free(a, recent))
			recent = 0;
	}
	lock_give(&a->post);
	if (recent)
		return recent;
	for (uint32_t tries = 1; tries < GZ_PAIR_SOCKS; tries++) {
		uint32_t n = pair->next_number;

		pair->next_number = n + 1 < GZ_PAIR_SOCKS ? n + 1 : 1;
		if (is_free(a, n))
			return n;
	}
	return 0;
}

bool pair_reaches(const struct pair_caller *from, const struct endpoint *to)
{
	struct served where;
	struct attachment *a;
	uint32_t n = 0;

	if (!served_here(to))
		return false;
	shim_lock();
	a = pair_to(from, to, &where);
	if (a)
		n = take_number(a);
	if (n)
		pair_recall(a, n);
	shim_unlock();
	return n;
}

static void write_view(struct gz_name *name, const struct endpoint *local, const struct endpoint *peer)
{
	memset(name, 0, sizeof(*name));
	memcpy(name->local_addr, local->addr, 16);
	memcpy(name->peer_addr, peer->addr, 16);
	name->local_port = local->port;
	name->peer_port = peer->port;
	name->family = gz_addr_is4(local->addr) ? AF_INET : AF_INET6;
	name->type = SOCK_STREAM;
	name->mss = 32768; /* what the kernel's loopback would say */
}

static void block(struct gz_pair_sock *e, uint32_t end, uint32_t n)
{
	uint64_t at = GZ_PAIR_HEADER + (2ull * n + end) * GZ_PAIR_BLOCK;
	uint32_t packed = GZ_BLOCK(at / GZ_ARENA_PAGE, __builtin_ctz(GZ_PAIR_BLOCK));

	gz_store(&e->end[end].out_block, packed);
	gz_store(&e->end[!end].in_block, packed);
}

/* Returns our name of it. */
static struct gz_name set_up(struct attachment *a, uint32_t n, const struct endpoint *local, const struct endpoint *to,
                             int32_t maxseg)
{
	struct gz_pair_sock *e = pair_sock(a, n);
	struct gz_name ours, theirs;

	memset(e->end, 0, sizeof(e->end));
	block(e, 0, n);
	block(e, 1, n);
	write_view(&ours, local, to);
	write_view(&theirs, to, local);
	theirs.since_ms = pair_clock_ms();
	if (maxseg > 0 && maxseg < ours.mss)
		ours.mss = theirs.mss = (uint16_t)maxseg; /* TCP_MAXSEG, as both would have agreed */
	e->view[0].name = ours;
	e->view[1].name = theirs;
	for (uint32_t side = 0; side < 2; side++)
		for (uint32_t w = 0; w < GZ_PAIR_QUEUE_WORDS; w++)
			gz_store(&a->pair->shared->side[side].interest[n][w], 0);
	gz_store(&e->end[0].aux[GZ_AUX_READY], gz_stamp());
	gz_store(&e->end[0].flags, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
	gz_store(&e->end[1].flags, GZ_WORKER_OPEN);
	return ours;
}

/* The connection by which these two ends are connected already: there can be no second. */
static bool is_connected(const struct endpoint *local, const struct endpoint *to)
{
	PAIR_EACH(a, i)
	{
		for (uint32_t n = 1; n < GZ_PAIR_SOCKS && introduce_is_ours(a); n++) {
			const struct gz_pair_sock *e = pair_sock(a, n);
			const struct gz_name *name = &e->view[0].name;

			if (name->local_port == local->port && name->peer_port == to->port &&
			    !memcmp(name->local_addr, local->addr, 16) && !memcmp(name->peer_addr, to->addr, 16) &&
			    ((gz_load(&e->end[0].flags) | gz_load(&e->end[1].flags)) & GZ_WORKER_OPEN))
				return true;
		}
	}
	return false;
}

/* Hands n to the other side, where it counts as established if the backlog has room for it. */
static int hand_over(struct attachment *a, uint32_t n, const struct served *where)
{
	struct gz_pair_sock *e = pair_sock(a, n);
	uint32_t backlog = served_backlog(where);

	if (accept_count(a, &e->view[1].name) <= backlog)
		gz_or(&e->end[1].flags, GZ_WORKER_CONNECTED);
	if (!accept_push(a, n))
		return 1;
	gz_fence(); /* pairs with theirs between taking one and looking for others, and after they listen no more */
	if (accept_count(a, &e->view[1].name) <= backlog)
		gz_or(&e->end[1].flags, GZ_WORKER_CONNECTED);
	return served_stands(where) || !accept_take_back(a, n) ? 0 : -ECONNREFUSED;
}

int pair_connect(const struct pair_caller *from, const struct endpoint *local, const struct endpoint *to,
                 struct sock *s, struct attachment **a, uint32_t *n)
{
	struct served where;
	int err = 1;

	if (!served_here(to))
		return 1;
	shim_lock();
	*a = pair_to(from, to, &where);
	if (!*a)
		goto out;
	err = -EADDRNOTAVAIL;
	if (s->bound && is_connected(local, to))
		goto out;
	err = 1;
	*n = take_number(*a);
	if (!*n)
		goto out;
	s->name = set_up(*a, *n, local, to, s->options.value[OPTION_MAXSEG]);
	pair_hold(*a, 0, *n, (*a)->pair->member);
	attachment_hold(*a, *n, s);
	err = hand_over(*a, *n, &where);
	if (err) {
		gz_store_release(&pair_sock(*a, *n)->end[1].flags, 0);
		attachment_let_go(*a, *n);
	}
out:
	shim_unlock();
	if (!err)
		pair_ring(*a, 0);
	return err;
}
