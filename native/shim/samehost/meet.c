/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/attach.h"
#include "worker/control.h"
#include "core/eventq.h"
#include "core/fdtable.h"
#include "stream/listen.h"
#include "worker/mapping.h"
#include "samehost/pair_parts.h"
#include "core/real.h"
#include "core/route.h"
#include "core/sock.h"
#include "core/watch.h"

#define ANSWER_PATIENCE_NS 1000000000ull

/* ------------------------------------------------------------------ who listens where */

static bool same_host(const struct endpoint *to)
{
	return gz_addr_is_loopback(to->addr) || route_is_stack(to);
}

uint64_t pair_netns(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	return fd < 0 || REAL(getsockopt)(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) ? 0 : cookie;
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
	WORKER_EACH(link, i)
	{
		if (!link->channel)
			continue;
		for (uint32_t l = 0; l < GZ_LISTENERS_MAX; l++) {
			const struct gz_listener *line = &link->page->listeners[l];

			if (!line_serves(line, netns, to))
				continue;
			*found = (struct served){ .port = to->port, .worker = i, .line = l, .at = link->serial };
			memcpy(found->addr, to->addr, 16);
			found->port_owner = gz_load(&line->port_owner);
			found->family = gz_load(&line->family);
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
	struct link *link = gz_load_acquire(&shim.links[served->worker]);

	return link && link->serial == served->at ? &link->page->listeners[served->line] : NULL;
}

static bool still_stands(const struct served *served)
{
	const struct gz_listener *line = line_of(served);

	return !line ||
	       (gz_load_acquire(&line->port_owner) == served->port_owner && gz_load(&line->family) == served->family);
}

/* A backlog is counted as the kernel counts it: one more than that may wait. */
static uint32_t backlog_of(const struct served *served)
{
	const struct gz_listener *line = line_of(served);

	return line ? gz_load(&line->backlog) : GZ_PAIR_SOCKS;
}

/* ------------------------------------------------------------------ pairs there are */

/* True if we may connect by it: numbers are given out by one process only. */
static bool is_ours(const struct link *link)
{
	return !gz_load(&link->dead) && !link->pair->side && !link->pair->inherited;
}

static struct link *known_pair(uint64_t netns, const struct endpoint *to, struct served *where)
{
	PAIR_EACH(link, i)
	{
		if (!is_ours(link))
			continue;
		for (uint32_t k = 0; k < PAIR_SERVED; k++) {
			*where = link->pair->served[k];
			if (where->port == to->port && !memcmp(where->addr, to->addr, 16) &&
			    is_reached(where->netns, netns, to) && still_stands(where))
				return link;
		}
	}
	return NULL;
}

static void remember(struct link *link, const struct served *where)
{
	link->pair->served[link->pair->served_next++ % PAIR_SERVED] = *where;
}

/* We may know the program that listens there by another of its listeners. */
static struct link *pair_of_family(const struct served *where)
{
	PAIR_EACH(link, i)
	{
		if (!is_ours(link) || link->pair->family != where->family || link->pair->at != where->at)
			continue;
		remember(link, where);
		return link;
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

/* Also for a pair that was another one before. */
static void start(struct link *link, const struct gz_message *message, struct link *introducer)
{
	struct pair *pair = link->pair;

	for (uint32_t q = 0; q < GZ_PAIR_QUEUES; q++)
		if (pair->queue_fd[q] > 0)
			fd_own_close(&pair->queue_fd[q]);
	memset(pair, 0, sizeof(*pair));
	pair->shared = (struct gz_pair *)link->arena;
	pair->side = message->number & 1;
	pair->member = message->member;
	pair->introducer = introducer;
	pair->uid = message->uid;
	pair->netns = message->netns;
	pair->next_number = 1;
}

static void find_twin(struct link *us)
{
	PAIR_EACH(link, i)
	{
		if (link == us || link->pair->inode != us->pair->inode || link->pair->dev != us->pair->dev ||
		    link->pair->side == us->pair->side)
			continue;
		link->pair->twin = us;
		us->pair->twin = link;
	}
}

struct link *pair_inherit(const struct pair_image *image)
{
	struct gz_message message = {
		.number = image->side, .member = image->member, .uid = image->uid, .netns = image->netns
	};
	struct link *link;
	struct stat st;
	uint32_t slot;

	if (image->side > 1 || image->member >= GZ_PAIR_MEMBERS || image->legs > GZ_PAIR_MEMBERS)
		return NULL;
	link = new_link(&slot);
	if (!link || mapping_pair(link, image->memory_fd) || fstat(image->memory_fd, &st))
		return NULL;
	start(link, &message, NULL);
	link->pair->inherited = true;
	link->pair->dev = st.st_dev;
	link->pair->inode = st.st_ino;
	link->slot = slot;
	link->control_fd = -1;
	fd_own(image->memory_fd, &link->pair->memory_fd);
	for (uint32_t i = 0; i < image->legs; i++)
		leg_add(link, image->leg[i].member % GZ_PAIR_MEMBERS, image->leg[i].life, image->leg[i].fd);
	attach_publish(link);
	find_twin(link);
	for (uint32_t w = 0; w < GZ_PAIR_SOCKS / 64; w++)
		for (uint64_t bits = gz_load(&pair_our_side(link)->holds[link->pair->member][w]) & ~image->keep[w];
		     bits; bits &= bits - 1)
			pair_release(link, link->pair->side, w * 64 + (uint32_t)__builtin_ctzll(bits), link->pair->member);
	return link;
}

/* Of the same two programs, and the same side. */
static struct link *like(uint32_t side, const struct stat *memory)
{
	PAIR_EACH(link, i)
	{
		if (link->pair->inode == memory->st_ino && link->pair->dev == memory->st_dev &&
		    link->pair->side == side && link->pair->member != PAIR_NOBODY && !gz_load(&link->dead))
			return link;
	}
	return NULL;
}

struct link *pair_take(const struct pair_image *image, uint32_t n, bool *taken)
{
	struct link *link;
	struct stat st;

	*taken = false;
	if (image->side > 1 || image->member >= GZ_PAIR_MEMBERS || fstat(image->memory_fd, &st))
		return NULL;
	link = like(image->side, &st);
	if (!link) {
		link = pair_inherit(image);
		*taken = link != NULL;
		if (link && link->pair->side)
			arrival_begin(link);
		return link;
	}
	if (!(gz_load(&pair_our_side(link)->holds[link->pair->member][n / 64]) >> n % 64 & 1))
		pair_hold(link, image->side, n, link->pair->member);
	pair_release(link, image->side, n, image->member); /* the place goes when its legs end */
	return link;
}

void pair_arrived(struct link *worker, const struct gz_message *message, int *fds, int count)
{
	struct link *link;
	struct stat st;
	uint32_t slot;

	if (message->status || count != GZ_PAIRED_FDS || message->member >= GZ_PAIR_MEMBERS ||
	    message->other >= GZ_PAIR_MEMBERS || !control_is_workers(fds[GZ_PAIRED_LEG]))
		goto close_fds;
	link = new_link(&slot);
	if (!link || mapping_pair(link, fds[GZ_PAIRED_MEMORY]) || fstat(fds[GZ_PAIRED_MEMORY], &st))
		goto close_fds;
	start(link, message, worker);
	link->pair->dev = st.st_dev;
	link->pair->inode = st.st_ino;
	link->slot = slot;
	link->control_fd = -1; /* it has legs instead */
	link->announced = 0;
	leg_add(link, message->other, message->life, fds[GZ_PAIRED_LEG]);
	fd_own(fds[GZ_PAIRED_MEMORY], &link->pair->memory_fd);
	attach_publish(link);
	find_twin(link);
	if (!link->pair->side)
		return;
	/* Connections may have been pushed before we could be rung: whoever holds a listener looks now. */
	arrival_begin(link);
	for (struct sock *s = shim.listeners; s; s = s->listener->next)
		watch.activate(s);
	eventq_wake_all();
	return;

close_fds:
	while (count > 0)
		UNCANCELLED(close, fds[--count]);
}

void pair_leg_arrived(struct link *worker, const struct gz_message *message, int *fds, int count)
{
	struct link *youngest = NULL;

	PAIR_EACH(link, i)
	{
		if (is_ours(link) && link->pair->introducer == worker && (!youngest || link->serial > youngest->serial))
			youngest = link;
	}
	if (youngest && count == 1 && message->member < GZ_PAIR_MEMBERS && control_is_workers(fds[0])) {
		lock_take(&youngest->post);
		leg_add(youngest, message->member, message->life, fds[0]);
		lock_give(&youngest->post);
		return;
	}
	while (count > 0)
		UNCANCELLED(close, fds[--count]);
}

static struct link *younger_than(uint64_t serial)
{
	PAIR_EACH(link, i)
	{
		if (is_ours(link) && link->serial > serial)
			return link;
	}
	return NULL;
}

/*
 * Asks a worker for an introduction and waits for its answer, and for the legs to all who may accept: over a leg that is
 * not there yet nobody can say how he is woken. shim.lock held.
 */
static struct link *ask(const struct pair_caller *from, const struct served *where)
{
	struct link *worker = gz_load(&shim.links[where->worker]), *link;
	struct gz_message message = { .kind = GZ_MESSAGE_PAIR, .port = where->port };
	uint64_t last = shim.links_serial, left;
	struct patience patience;
	int fds[GZ_WELCOME_FDS], count, got, more = -1; /* legs that must still come; < 0: not answered */

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
			attach_said(worker, &message, fds, count);
			continue;
		}
		left = patience_left(&patience, worker->control_fd);
		if (!left)
			break;
		struct pollfd wait = { .fd = worker->control_fd, .events = POLLIN };
		(void)REAL(poll)(&wait, 1, (int)(left / 1000000ull) + 1);
	}
	link = younger_than(last);
	if (!link)
		return NULL;
	link->pair->family = where->family;
	link->pair->at = where->at;
	remember(link, where);
	return link;
}

/* The pair with the program that listens there, made if there is none; NULL: not this way. shim.lock held. */
static struct link *pair_to(const struct pair_caller *from, const struct endpoint *to, struct served *where)
{
	struct link *link = known_pair(from->netns, to, where);

	if (link || !find_line(from->netns, to, where))
		return link;
	link = pair_of_family(where);
	return link ? link : ask(from, where);
}

/* ------------------------------------------------------------------ connecting */

/* Neither end exists any more. The acquires pair with the releases that closed them. */
static bool is_free(const struct link *link, uint32_t n)
{
	const struct gz_pair_sock *e = pair_sock(link, n);

	return !gz_load(&link->socks[n]) && !(gz_load_acquire(&e->end[0].flags) & GZ_WORKER_OPEN) &&
	       !(gz_load_acquire(&e->end[1].flags) & GZ_WORKER_OPEN);
}

static uint32_t take_number(struct link *link)
{
	struct pair *pair = link->pair;
	uint32_t recent = 0;

	lock_take(&link->post);
	while (!recent && pair->recents) {
		recent = pair->recent[--pair->recents];
		if (!is_free(link, recent))
			recent = 0;
	}
	lock_give(&link->post);
	if (recent)
		return recent;
	for (uint32_t tries = 1; tries < GZ_PAIR_SOCKS; tries++) {
		uint32_t n = pair->next_number;

		pair->next_number = n + 1 < GZ_PAIR_SOCKS ? n + 1 : 1;
		if (is_free(link, n))
			return n;
	}
	return 0;
}

bool pair_reaches(const struct pair_caller *from, const struct endpoint *to)
{
	struct served where;
	struct link *link;
	uint32_t n = 0;

	if (!same_host(to))
		return false;
	shim_lock();
	link = pair_to(from, to, &where);
	if (link)
		n = take_number(link);
	if (n)
		pair_recall(link, n);
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
static struct gz_name set_up(struct link *link, uint32_t n, const struct endpoint *local, const struct endpoint *to,
                             int32_t maxseg)
{
	struct gz_pair_sock *e = pair_sock(link, n);
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
			gz_store(&link->pair->shared->side[side].interest[n][w], 0);
	gz_store(&e->end[0].flags, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
	gz_store(&e->end[1].flags, GZ_WORKER_OPEN);
	return ours;
}

/* The connection by which these two ends are connected already: there can be no second. */
static bool is_connected(const struct endpoint *local, const struct endpoint *to)
{
	PAIR_EACH(link, i)
	{
		for (uint32_t n = 1; n < GZ_PAIR_SOCKS && is_ours(link); n++) {
			const struct gz_pair_sock *e = pair_sock(link, n);
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
static int hand_over(struct link *link, uint32_t n, const struct served *where)
{
	struct gz_pair_sock *e = pair_sock(link, n);
	uint32_t backlog = backlog_of(where);

	if (arrival_count(link, &e->view[1].name) <= backlog)
		gz_or(&e->end[1].flags, GZ_WORKER_CONNECTED);
	if (!arrival_push(link, n))
		return 1;
	gz_fence(); /* pairs with theirs between taking one and looking for others, and after they listen no more */
	if (arrival_count(link, &e->view[1].name) <= backlog)
		gz_or(&e->end[1].flags, GZ_WORKER_CONNECTED);
	return still_stands(where) || !arrival_take_back(link, n) ? 0 : -ECONNREFUSED;
}

int pair_connect(const struct pair_caller *from, const struct endpoint *local, const struct endpoint *to,
                 struct sock *s, struct link **link, uint32_t *n)
{
	struct served where;
	int err = 1;

	if (!same_host(to))
		return 1;
	shim_lock();
	*link = pair_to(from, to, &where);
	if (!*link)
		goto out;
	err = -EADDRNOTAVAIL;
	if (s->bound && is_connected(local, to))
		goto out;
	err = 1;
	*n = take_number(*link);
	if (!*n)
		goto out;
	s->name = set_up(*link, *n, local, to, s->options.value[OPTION_MAXSEG]);
	pair_hold(*link, 0, *n, (*link)->pair->member);
	link_hold(*link, *n, s);
	err = hand_over(*link, *n, &where);
	if (err) {
		gz_store_release(&pair_sock(*link, *n)->end[1].flags, 0);
		link_let_go(*link, *n);
	}
out:
	shim_unlock();
	if (!err)
		pair_ring(*link, 0);
	return err;
}
