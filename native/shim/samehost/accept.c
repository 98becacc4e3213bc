/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "samehost/accept.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include <gazelle/address.h>
#include <gazelle/stamp.h>

#include "core/counts.h"
#include "core/route.h"
#include "core/sock.h"
#include "samehost/pair.h"
#include "samehost/served.h"
#include "worker/listener.h"
#include "worker/requests.h"

static _Atomic uint64_t listening; /* event queues that want to hear of waiting connections */

/* ------------------------------------------------------------------ the ring, side 0 */

bool accept_push(struct attachment *a, uint32_t n)
{
	struct gz_pair_side *to = pair_other_side(a);
	uint32_t head = gz_load(&to->accept_head);

	if (head - gz_load_acquire(&to->accept_tail) >= GZ_PAIR_SOCKS) /* pairs with the cas in advance() */
		return false;
	gz_store(&to->accept[head % GZ_PAIR_SOCKS], GZ_PAIR_SLOT(head, n));
	gz_store_release(&to->accept_head, head + 1); /* pairs with the acquires below: entry and slot are written */
	return true;
}

/* Indices of what may wait in this ring. False: nothing; or nonsense, of which nothing is believed. */
static bool ring(const struct gz_pair_side *side, uint32_t *tail, uint32_t *head)
{
	*tail = gz_load(&side->accept_tail);
	*head = gz_load_acquire(&side->accept_head);
	return *tail != *head && *head - *tail <= GZ_PAIR_SOCKS;
}

static bool is_connected(struct attachment *a, uint32_t n)
{
	return gz_load_acquire(&pair_sock(a, n)->end[1].flags) & GZ_WORKER_CONNECTED;
}

uint32_t accept_count(struct attachment *a, const struct gz_name *like)
{
	const struct gz_pair_side *side = pair_other_side(a);
	uint32_t tail, head, count = 0;

	if (!ring(side, &tail, &head))
		return 0;
	for (; tail != head; tail++) {
		uint32_t n = gz_load(&side->accept[tail % GZ_PAIR_SOCKS]) % GZ_PAIR_SOCKS;
		const struct gz_name *name = &pair_sock(a, n)->view[1].name;

		if (n && is_connected(a, n) && name->local_port == like->local_port &&
		    !memcmp(name->local_addr, like->local_addr, sizeof(name->local_addr)))
			count++;
	}
	return count;
}

/* A process that finds taken slots at the end of the ring moves the end. */
static void advance(struct gz_pair_side *side)
{
	uint32_t t = gz_load(&side->accept_tail);

	/* The acquire pairs with the push: the slot before the head is the new one. */
	while (t != gz_load_acquire(&side->accept_head) && !gz_load(&side->accept[t % GZ_PAIR_SOCKS]))
		if (gz_cas(&side->accept_tail, &t, t + 1))
			t++;
}

bool accept_take_back(struct attachment *a, uint32_t n)
{
	struct gz_pair_side *side = pair_other_side(a);
	uint32_t tail, head;

	if (!ring(side, &tail, &head))
		return false;
	for (; tail != head; tail++) {
		uint32_t slot = gz_load(&side->accept[tail % GZ_PAIR_SOCKS]);

		if (slot && slot % GZ_PAIR_SOCKS == n)
			return gz_cas(&side->accept[tail % GZ_PAIR_SOCKS], &slot, 0);
	}
	return false;
}

/* ------------------------------------------------------------------ the ring, side 1 */

bool accept_is_empty(const struct attachment *a)
{
	uint32_t tail, head;

	advance(pair_our_side(a));
	return !ring(pair_our_side(a), &tail, &head);
}

static bool is_for(const struct sock *s, const struct gz_name *name)
{
	return s->local.port == name->local_port && gz_addr_serves(s->local.addr, s->entries->v6only, name->local_addr);
}

enum stage {
	WANTS_ROOM, /* in the backlog */
	CONNECTED,
	READY, /* connected, and accept() may have it */
};

/* TCP_DEFER_ACCEPT: not before it says something, for so long. */
static bool is_deferred(struct attachment *a, const struct sock *s, uint32_t n)
{
	const struct gz_pair_sock *e = pair_sock(a, n);
	int32_t seconds = s->options.value[OPTION_DEFER_ACCEPT];

	return seconds > 0 && gz_load_acquire(&e->end[0].out_head) == gz_load(&e->end[1].in_tail) &&
	       !(gz_load(&e->end[0].flags) & (GZ_WORKER_FIN | GZ_WORKER_DEAD)) &&
	       pair_clock_ms() - e->view[1].name.since_ms < (uint32_t)seconds * 1000;
}

static bool is_at(struct attachment *a, const struct sock *s, uint32_t n, enum stage stage)
{
	if (is_connected(a, n) != (stage != WANTS_ROOM) || !is_for(s, &pair_sock(a, n)->view[1].name))
		return false;
	return stage != READY || !is_deferred(a, s, n);
}

/* The oldest that waits for s at this stage, from *at on. False: none; else its place, and what stands there. */
static bool find(struct attachment *a, const struct sock *s, enum stage stage, uint32_t *at, uint32_t *slot)
{
	const struct gz_pair_side *side = pair_our_side(a);
	uint32_t tail, head;

	if (!ring(side, &tail, &head))
		return false;
	if (*at - tail <= head - tail)
		tail = *at;
	for (; tail != head; tail++) {
		uint32_t n;

		*slot = gz_load(&side->accept[tail % GZ_PAIR_SOCKS]);
		n = *slot % GZ_PAIR_SOCKS;
		if (!n || !is_at(a, s, n, stage))
			continue;
		*at = tail;
		return true;
	}
	return false;
}

static bool find_first(struct attachment *a, const struct sock *s, enum stage stage, uint32_t *at, uint32_t *slot)
{
	*at = gz_load(&pair_our_side(a)->accept_tail);
	return find(a, s, stage, at, slot);
}

/* Several processes may see the same: one of them gets it. */
static bool take(struct attachment *a, uint32_t at, uint32_t slot)
{
	struct gz_pair_side *side = pair_our_side(a);
	bool ours = gz_cas(&side->accept[at % GZ_PAIR_SOCKS], &slot, 0);

	advance(side);
	return ours && !gz_load(&a->socks[slot % GZ_PAIR_SOCKS]); /* a number that is in use is nonsense */
}

static void refuse(struct attachment *a, uint32_t n, bool connected)
{
	struct gz_end *me = &pair_sock(a, n)->end[1];

	gz_store(&me->error, connected ? ECONNRESET : ECONNREFUSED);
	/* Not OPEN: the number is free once side 0 lets go. */
	gz_store_release(&me->flags, (gz_load(&me->flags) & GZ_WORKER_CONNECTED) | GZ_WORKER_DEAD);
	pair_ring(a, n);
}

/*
 * The other program writes what its connection is called. It may be an address of this host only, of which there are two kinds, and
 * a port that it could have bound: connections from elsewhere come over the wire.
 */
static bool is_credible(const struct attachment *a, struct sock *s, const struct gz_name *name)
{
	const struct pair *pair = a->pair;
	struct endpoint here = { .port = name->local_port };

	memcpy(here.addr, name->local_addr, sizeof(here.addr));
	if (!is_for(s, name) || !name->peer_port || (name->peer_port < IPPORT_RESERVED && pair->uid))
		return false;
	if (gz_addr_is_loopback(name->local_addr))
		return gz_addr_is_loopback(name->peer_addr) &&
		       gz_addr_is4(name->peer_addr) == gz_addr_is4(name->local_addr) && pair->netns &&
		       pair->netns == listener_netns(s);
	return route_is_stack(&here) && !memcmp(name->peer_addr, name->local_addr, sizeof(name->peer_addr));
}

/* `name` is ours from then on: what is shared may change under our eyes. */
static bool accept_from(struct attachment *a, struct sock *s, uint32_t *n, struct gz_name *name)
{
	uint32_t at, slot;

	while (find_first(a, s, READY, &at, &slot)) {
		*n = slot % GZ_PAIR_SOCKS;
		if (!take(a, at, slot))
			continue;
		memcpy(name, &pair_sock(a, *n)->view[1].name, sizeof(*name));
		__asm__ __volatile__("" : : "g"(name) : "memory"); /* our copy is read from here on, not theirs */
		if (!is_credible(a, s, name)) {
			refuse(a, *n, true);
			count_refused();
			continue;
		}
		pair_hold(a, 1, *n, a->pair->member);
		return true;
	}
	return false;
}

#define ACCEPTING_EACH(a, i) \
	PAIR_EACH(a, i)      \
	if (a->pair->side && a->pair->member != PAIR_NOBODY)

bool pair_accept(struct sock *s, struct attachment **a, uint32_t *n, struct gz_name *name)
{
	uint32_t count = shim.attachments_end > GZ_WORKERS_MAX ? shim.attachments_end - GZ_WORKERS_MAX : 0;

	for (uint32_t tries = 0; tries < count; tries++) {
		uint32_t i = (listener_of(s)->pair_turn + tries) % count;

		*a = gz_load_acquire(&shim.attachments[GZ_WORKERS_MAX + i]);
		if (!*a || !(*a)->pair->side || (*a)->pair->member == PAIR_NOBODY || !accept_from(*a, s, n, name))
			continue;
		listener_of(s)->pair_turn = i + 1;
		pair_backlog(s);
		return true;
	}
	return false;
}

bool pair_waiting(const struct sock *s)
{
	uint32_t at, slot;

	ACCEPTING_EACH(a, i)
	{
		if (find_first(a, s, READY, &at, &slot))
			return true;
	}
	return false;
}

bool pair_waiting_since(const struct sock *s, uint32_t *stamp)
{
	bool any = false;
	uint32_t at, slot;

	ACCEPTING_EACH(a, i)
	{
		uint32_t since;

		if (!find_first(a, s, READY, &at, &slot))
			continue;
		since = gz_load(&pair_sock(a, slot)->end[0].aux[GZ_AUX_READY]);
		if (!any || gz_stamp_before(since, *stamp))
			*stamp = since;
		any = true;
	}
	return any;
}

uint32_t pair_accept_count(void)
{
	uint32_t sum = 0;

	ACCEPTING_EACH(a, i)
	{
		sum += gz_load_acquire(&pair_our_side(a)->accept_head) + 1;
	}
	return sum;
}

static void promote(struct attachment *a, const struct sock *s)
{
	uint32_t at, slot, waiting = 0, backlog = (uint32_t)listener_of(s)->backlog;

	if (!find_first(a, s, WANTS_ROOM, &at, &slot))
		return;
	for (bool more = find_first(a, s, CONNECTED, &at, &slot); more; more = find(a, s, CONNECTED, &at, &slot)) {
		waiting++;
		at++;
	}
	for (; waiting <= backlog && find_first(a, s, WANTS_ROOM, &at, &slot); waiting++) {
		gz_or(&pair_sock(a, slot)->end[1].flags, GZ_WORKER_CONNECTED);
		pair_ring(a, slot % GZ_PAIR_SOCKS);
	}
}

void pair_backlog(const struct sock *s)
{
	ACCEPTING_EACH(a, i)
	{
		promote(a, s);
	}
}

/* ------------------------------------------------------------------ refusing */

static void refuse_in(struct attachment *a, const struct sock *s)
{
	uint32_t at, slot;

	for (enum stage stage = WANTS_ROOM; stage <= CONNECTED; stage++)
		while (find_first(a, s, stage, &at, &slot))
			if (take(a, at, slot))
				refuse(a, slot % GZ_PAIR_SOCKS, stage == CONNECTED);
}

/*
 * After the workers have heard that this process listens no more, their pages tell whether another does: one of our program,
 * which then accepts what waits. A process that connects looks there, too, after it has pushed: one of the two sees the other.
 */
void pair_refuse_waiting(struct sock *s)
{
	bool any = false;

	ACCEPTING_EACH(a, i)
	{
		any = true;
	}
	if (!any)
		return;
	WORKER_EACH(a, i)
	{
		if (!a->channel)
			return; /* the child of a fork that has not claimed: its parent still listens */
		lock_take(&a->post);
		request_settle(a);
		lock_give(&a->post);
	}
	gz_fence(); /* pairs with the one after a push */
	if (served_any(listener_netns(s), &s->local))
		return;
	ACCEPTING_EACH(a, i)
	{
		refuse_in(a, s);
	}
}

/* ------------------------------------------------------------------ interest */

void pair_listen_interest(uint32_t queue)
{
	gz_or(&listening, 1ull << queue);
	ACCEPTING_EACH(a, i)
	{
		pair_interest(a, 0, queue, true);
	}
	gz_fence(); /* pairs with the fence in pair_ring */
}

void accept_begin(struct attachment *a)
{
	for (uint64_t queues = gz_load(&listening); queues; queues &= queues - 1)
		pair_interest(a, 0, (uint32_t)__builtin_ctzll(queues), true);
}

void accept_after_fork(uint64_t queues)
{
	gz_and(&listening, queues);
	ACCEPTING_EACH(a, i)
	{
		accept_begin(a);
	}
}
