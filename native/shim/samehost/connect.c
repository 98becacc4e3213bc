/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/address.h>

#include "worker/control.h"
#include "core/eventq.h"
#include "core/fdtable.h"
#include "worker/answer.h"
#include "worker/entries.h"
#include "core/mapping.h"
#include "samehost/pair_parts.h"
#include "core/real.h"
#include "core/route.h"
#include "core/sock.h"

#define ANSWER_PATIENCE_NS 1000000000ull

/* ------------------------------------------------------------------ who listens where */

static bool same_host(const struct endpoint *to)
{
	return gz_addr_is_loopback(to->addr) || route_is_stack(to);
}

/* A loopback address is that of the caller's namespace, the stack's is everybody's. */
static bool is_reached(uint64_t netns, uint64_t from, const struct endpoint *to)
{
	return netns == from || !gz_addr_is_loopback(to->addr);
}

static bool line_serves(const struct gz_listener *line, uint64_t netns, const struct endpoint *to)
{
	/* The acquire pairs with the worker's release of the line: the rest of it is written. */
	return gz_load_acquire(&line->port_owner) >> 16 == to->port && to->port &&
	       gz_addr_serves(line->addr, line->v6only, to->addr) && is_reached(line->netns, netns, to);
}

/* The first line of a worker's page that names a listener there. */
static bool find_line(uint64_t netns, const struct endpoint *to, struct served *found)
{
	WORKER_EACH(a, i)
	{
		if (!a->channel)
			continue;
		for (uint32_t l = 0; l < GZ_LISTENERS_MAX; l++) {
			const struct gz_listener *line = &a->page->listeners[l];

			if (!line_serves(line, netns, to))
				continue;
			*found = (struct served){ .port = to->port, .worker = i, .line = l, .at = a->serial };
			memcpy(found->addr, to->addr, 16);
			found->port_owner = gz_load(&line->port_owner);
			found->program = gz_load(&line->family);
			found->netns = line->netns;
			return true;
		}
	}
	return false;
}

bool pair_listens(uint64_t netns, const struct endpoint *to)
{
	struct served found;
	struct endpoint here = *to;

	if (gz_addr_is_any(here.addr)) { /* a listener on any address, asking about itself */
		if (gz_addr_is4(here.addr))
			here.addr[12] = 127;
		here.addr[15] = 1;
	}
	return same_host(&here) && find_line(netns, &here, &found);
}

/* The line of `served`, or NULL while its worker is away; pairs go on without. */
static const struct gz_listener *line_of(const struct served *served)
{
	struct attachment *a = gz_load_acquire(&shim.attachments[served->worker]);

	return a && a->serial == served->at ? &a->page->listeners[served->line] : NULL;
}

static bool still_stands(const struct served *served)
{
	const struct gz_listener *line = line_of(served);

	return !line ||
	       (gz_load_acquire(&line->port_owner) == served->port_owner && gz_load(&line->family) == served->program);
}

/* A backlog is counted as the kernel counts it: one more than that may wait. */
static uint32_t backlog_of(const struct served *served)
{
	const struct gz_listener *line = line_of(served);

	return line ? gz_load(&line->backlog) : GZ_PAIR_SOCKS;
}

/* ------------------------------------------------------------------ pairs there are */

/* True if we may connect by it: numbers are given out by one process only. */
static bool is_ours(const struct attachment *a)
{
	return !gz_load(&a->dead) && !a->pair->side && !a->pair->inherited;
}

static struct attachment *known_pair(uint64_t netns, const struct endpoint *to, struct served *where)
{
	PAIR_EACH(a, i)
	{
		if (!is_ours(a))
			continue;
		for (uint32_t k = 0; k < PAIR_SERVED; k++) {
			*where = a->pair->served[k];
			if (where->port == to->port && !memcmp(where->addr, to->addr, 16) &&
			    is_reached(where->netns, netns, to) && still_stands(where))
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
		if (!is_ours(a) || a->pair->program != where->program || a->pair->at != where->at)
			continue;
		remember(a, where);
		return a;
	}
	return NULL;
}

/* ------------------------------------------------------------------ making a pair */

static int map_pair(struct attachment *a, int fd)
{
	struct gz_pair *pair = mapping_sealed(fd, GZ_PAIR_SIZE, a->arena);

	if (!pair)
		return -errno;
	a->arena = (struct gz_arena *)pair;
	a->arena_size = GZ_PAIR_SIZE;
	a->blocks_from = GZ_PAIR_HEADER;
	return pair->magic == GZ_PAIR_MAGIC && pair->abi_version == GZ_ABI_VERSION && pair->socks == GZ_PAIR_SOCKS
	               ? 0
	               : -EPROTO;
}

static struct attachment *new_attachment(uint32_t *slot)
{
	struct attachment *a;

	for (*slot = GZ_WORKERS_MAX; *slot < ATTACHMENTS_MAX; ++*slot)
		if (!gz_load(&shim.attachments[*slot]))
			break;
	if (*slot == ATTACHMENTS_MAX)
		return NULL;
	a = attachment_take(PEER_PROGRAM);
	if (a && !a->pair)
		a->pair = calloc(1, sizeof(*a->pair));
	return a && a->pair ? a : NULL;
}

/* Also for a pair that was another one before. */
static void start(struct attachment *a, const struct gz_message *message, struct attachment *introducer)
{
	struct pair *pair = a->pair;

	for (uint32_t q = 0; q < GZ_PAIR_QUEUES; q++)
		if (pair->queue_fd[q] > 0)
			fd_own_close(&pair->queue_fd[q]);
	memset(pair, 0, sizeof(*pair));
	pair->shared = (struct gz_pair *)a->arena;
	pair->side = message->number & 1;
	pair->member = message->member;
	pair->introducer = introducer;
	pair->uid = message->uid;
	pair->netns = message->netns;
	pair->next_number = 1;
}

static void find_opposite(struct attachment *us)
{
	PAIR_EACH(a, i)
	{
		if (a == us || a->pair->inode != us->pair->inode || a->pair->dev != us->pair->dev ||
		    a->pair->side == us->pair->side)
			continue;
		a->pair->opposite = us;
		us->pair->opposite = a;
	}
}

struct attachment *pair_inherit(const struct pair_snapshot *snapshot)
{
	struct gz_message message = {
		.number = snapshot->side, .member = snapshot->member, .uid = snapshot->uid, .netns = snapshot->netns
	};
	struct attachment *a;
	struct stat st;
	uint32_t slot;

	if (snapshot->side > 1 || snapshot->member >= GZ_PAIR_MEMBERS || snapshot->members > GZ_PAIR_MEMBERS)
		return NULL;
	a = new_attachment(&slot);
	if (!a || map_pair(a, snapshot->memory_fd) || fstat(snapshot->memory_fd, &st))
		return NULL;
	start(a, &message, NULL);
	a->pair->inherited = true;
	a->pair->dev = st.st_dev;
	a->pair->inode = st.st_ino;
	a->slot = slot;
	a->control_fd = -1;
	fd_own(snapshot->memory_fd, &a->pair->memory_fd);
	for (uint32_t i = 0; i < snapshot->members; i++)
		member_add(a, snapshot->member_fd[i].member % GZ_PAIR_MEMBERS, snapshot->member_fd[i].life,
		           snapshot->member_fd[i].fd);
	attachment_publish(a);
	find_opposite(a);
	for (uint32_t w = 0; w < GZ_PAIR_SOCKS / 64; w++)
		for (uint64_t bits = gz_load(&pair_our_side(a)->holds[a->pair->member][w]) & ~snapshot->keep[w]; bits;
		     bits &= bits - 1)
			pair_release(a, a->pair->side, w * 64 + (uint32_t)__builtin_ctzll(bits), a->pair->member);
	return a;
}

/* Of the same two programs, and the same side. */
static struct attachment *like(uint32_t side, const struct stat *memory)
{
	PAIR_EACH(a, i)
	{
		if (a->pair->inode == memory->st_ino && a->pair->dev == memory->st_dev && a->pair->side == side &&
		    a->pair->member != PAIR_NOBODY && !gz_load(&a->dead))
			return a;
	}
	return NULL;
}

struct attachment *pair_take(const struct pair_snapshot *snapshot, uint32_t n, bool *taken)
{
	struct attachment *a;
	struct stat st;

	*taken = false;
	if (snapshot->side > 1 || snapshot->member >= GZ_PAIR_MEMBERS || fstat(snapshot->memory_fd, &st))
		return NULL;
	a = like(snapshot->side, &st);
	if (!a) {
		a = pair_inherit(snapshot);
		*taken = a != NULL;
		if (a && a->pair->side)
			accept_begin(a);
		return a;
	}
	if (!(gz_load(&pair_our_side(a)->holds[a->pair->member][n / 64]) >> n % 64 & 1))
		pair_hold(a, snapshot->side, n, a->pair->member);
	pair_release(a, snapshot->side, n, snapshot->member); /* the place goes when its member sockets end */
	return a;
}

static void introduce_program(struct attachment *worker, const struct gz_message *message, int *fds, int count)
{
	struct attachment *a;
	struct stat st;
	uint32_t slot;

	if (message->status || count != GZ_PAIRED_FDS || message->member >= GZ_PAIR_MEMBERS ||
	    message->other >= GZ_PAIR_MEMBERS || !control_is_workers(fds[GZ_PAIRED_LEG]))
		goto close_fds;
	a = new_attachment(&slot);
	if (!a || map_pair(a, fds[GZ_PAIRED_MEMORY]) || fstat(fds[GZ_PAIRED_MEMORY], &st))
		goto close_fds;
	start(a, message, worker);
	a->pair->dev = st.st_dev;
	a->pair->inode = st.st_ino;
	a->slot = slot;
	a->control_fd = -1; /* it has member sockets instead */
	a->announced = 0;
	member_add(a, message->other, message->life, fds[GZ_PAIRED_LEG]);
	fd_own(fds[GZ_PAIRED_MEMORY], &a->pair->memory_fd);
	attachment_publish(a);
	find_opposite(a);
	if (!a->pair->side)
		return;
	/* Connections may have been pushed before we could be rung: whoever holds a listener looks now. */
	accept_begin(a);
	entries_activate_listeners();
	eventq_wake_all();
	return;

close_fds:
	while (count > 0)
		UNCANCELLED(close, fds[--count]);
}

static void introduce_member(struct attachment *worker, const struct gz_message *message, int *fds, int count)
{
	struct attachment *youngest = NULL;

	PAIR_EACH(a, i)
	{
		if (is_ours(a) && a->pair->introducer == worker && (!youngest || a->serial > youngest->serial))
			youngest = a;
	}
	if (youngest && count == 1 && message->member < GZ_PAIR_MEMBERS && control_is_workers(fds[0])) {
		lock_take(&youngest->post);
		member_add(youngest, message->member, message->life, fds[0]);
		lock_give(&youngest->post);
		return;
	}
	while (count > 0)
		UNCANCELLED(close, fds[--count]);
}

void pair_introduced(struct attachment *worker, const struct gz_message *message, int *fds, int count)
{
	if (message->kind == GZ_MESSAGE_PAIRED)
		introduce_program(worker, message, fds, count);
	else if (message->kind == GZ_MESSAGE_LEG)
		introduce_member(worker, message, fds, count);
	else
		control_close(fds, count);
}

static struct attachment *younger_than(uint64_t serial)
{
	PAIR_EACH(a, i)
	{
		if (is_ours(a) && a->serial > serial)
			return a;
	}
	return NULL;
}

/*
 * Asks a worker for an introduction and waits for its answer, and for the member sockets to all who may accept: over a socket that is
 * not there yet nobody can say how he is woken. shim.lock held.
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
				more = message.legs;
			else if (message.kind == GZ_MESSAGE_LEG && more > 0)
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

	if (a || !find_line(from->netns, to, where))
		return a;
	a = pair_to_program(where);
	return a ? a : ask(from, where);
}

/* ------------------------------------------------------------------ connecting */

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

	if (!same_host(to))
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
	gz_store(&e->end[0].flags, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
	gz_store(&e->end[1].flags, GZ_WORKER_OPEN);
	return ours;
}

/* The connection by which these two ends are connected already: there can be no second. */
static bool is_connected(const struct endpoint *local, const struct endpoint *to)
{
	PAIR_EACH(a, i)
	{
		for (uint32_t n = 1; n < GZ_PAIR_SOCKS && is_ours(a); n++) {
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
	uint32_t backlog = backlog_of(where);

	if (accept_count(a, &e->view[1].name) <= backlog)
		gz_or(&e->end[1].flags, GZ_WORKER_CONNECTED);
	if (!accept_push(a, n))
		return 1;
	gz_fence(); /* pairs with theirs between taking one and looking for others, and after they listen no more */
	if (accept_count(a, &e->view[1].name) <= backlog)
		gz_or(&e->end[1].flags, GZ_WORKER_CONNECTED);
	return still_stands(where) || !accept_take_back(a, n) ? 0 : -ECONNREFUSED;
}

int pair_connect(const struct pair_caller *from, const struct endpoint *local, const struct endpoint *to,
                 struct sock *s, struct attachment **a, uint32_t *n)
{
	struct served where;
	int err = 1;

	if (!same_host(to))
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
