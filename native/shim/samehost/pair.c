/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "samehost/pair.h"

#include <errno.h>
#include <sys/socket.h>

#include <gazelle/stamp.h>

#include "core/confined.h"
#include "core/eventq.h"
#include "core/real.h"
#include "core/sock.h"
#include "samehost/member.h"

#define WAKE_TRIES 16u /* a hostile member never stops talking */

struct gz_sock *pair_entry(struct attachment *a, uint32_t n, struct gz_end **me, struct gz_end **peer)
{
	struct gz_pair_sock *e = pair_sock(a, n);
	uint32_t side = a->pair->side;

	*me = &e->end[side];
	*peer = &e->end[!side];
	/* Shifted so that options and name of our view stand where struct gz_sock has them; its ends are not used. */
	return (struct gz_sock *)((char *)&e->view[side] - offsetof(struct gz_sock, options));
}

/* The number of an event queue of ours on this pair, taken if need be; GZ_PAIR_QUEUES: all are in use. */
static uint32_t queue_number(struct attachment *a, uint32_t queue)
{
	struct gz_pair_side *mine = pair_our_side(a);
	_Atomic uint32_t *slot = &a->pair->queue[queue];
	uint32_t q = gz_load(slot), none = 0, owner = a->pair->member + 1;

	if (q)
		return q - 1;
	for (q = 0; q < GZ_PAIR_QUEUES; q++) {
		none = 0;
		if (!gz_load(&mine->owner[q]) && gz_cas(&mine->owner[q], &none, owner))
			break;
	}
	if (q == GZ_PAIR_QUEUES) {
		gz_store(&a->pair->crowded, true);
		return q;
	}
	/* Its last owner may have died asleep, or with bells not taken; both mean nothing but a look too many. */
	none = 0;
	if (gz_cas(slot, &none, q + 1))
		return q;
	gz_store(&mine->owner[q], 0); /* another thread was faster */
	return none - 1;
}

struct gz_bell *pair_bell(struct attachment *a, uint32_t queue)
{
	uint32_t q = gz_load(&a->pair->queue[queue]);

	return q ? &pair_our_side(a)->to[q - 1] : NULL;
}

void pair_interest(struct attachment *a, uint32_t n, uint32_t queue, bool on)
{
	uint32_t q = on ? queue_number(a, queue) : gz_load(&a->pair->queue[queue]) - 1;
	_Atomic uint64_t *words = pair_our_side(a)->interest[n % GZ_PAIR_SOCKS];

	if (q >= GZ_PAIR_QUEUES)
		return; /* pair_hears() says so before anybody sleeps long */
	if (on)
		gz_or(&words[q / 64], 1ull << q % 64);
	else
		gz_and(&words[q / 64], ~(1ull << q % 64));
}

uint64_t pair_interested(struct attachment *a, uint32_t n)
{
	const _Atomic uint64_t *words = pair_our_side(a)->interest[n % GZ_PAIR_SOCKS];
	uint64_t queues = 0;

	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++) {
		uint32_t q = gz_load(&a->pair->queue[k]);

		if (q && gz_load(&words[(q - 1) / 64]) >> (q - 1) % 64 & 1)
			queues |= 1ull << k;
	}
	return queues;
}

/* The other side's queue is one of this process, too. */
static bool wake_opposite(struct attachment *opposite, const struct gz_pair_side *to, uint32_t q)
{
	if (!opposite || gz_load(&to->owner[q]) != opposite->pair->member + 1)
		return false;
	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++) {
		if (gz_load(&opposite->pair->queue[k]) != q + 1)
			continue;
		eventq_wake(k);
		return true;
	}
	return false;
}

/*
 * The other side's queue q sleeps: wakes it, once. It has told how before, at the latest on one of the member sockets; to that member socket
 * itself another may have to lead us, if it is the child of a child.
 */
static void wake(struct attachment *a, struct gz_pair_side *to, uint32_t q)
{
	if (!gz_exchange(&to->to[q].asleep, 0) || wake_opposite(a->pair->opposite, to, q))
		return;
	for (uint32_t tries = 0; tries < WAKE_TRIES; tries++) {
		bool heard;
		int fd = __atomic_load_n(&a->pair->queue_fd[q], __ATOMIC_ACQUIRE);

		/* No room means that it has not even taken the last one. */
		if (fd > 0 && (confined_wake(fd) == 1 || errno == EAGAIN))
			return;
		if (confined) {
			member_wake_all(a); /* nothing can be received any more */
			return;
		}
		lock_take(&a->post);
		heard = member_receive_all(a);
		lock_give(&a->post);
		if (!heard && tries)
			return; /* another thread may have heard it for us, hence the second look; then it has died */
	}
}

void pair_ring(struct attachment *a, uint32_t n)
{
	struct gz_pair_side *to = pair_other_side(a);
	_Atomic uint64_t *interest = to->interest[n % GZ_PAIR_SOCKS];
	uint64_t queues[GZ_PAIR_QUEUE_WORDS], any = 0;
	bool stamped = !n; /* connections that wait are stamped one by one */

	gz_fence(); /* pairs with the other side's, between setting interest and looking at the level */
	for (uint32_t w = 0; w < GZ_PAIR_QUEUE_WORDS; w++) {
		queues[w] = gz_load(&interest[w]);
		any |= queues[w];
		for (uint64_t q = queues[w]; q; q &= q - 1) {
			struct gz_bell *bell = &to->to[w * 64 + (uint32_t)__builtin_ctzll(q)];

			if (!stamped && !gz_bell_rings(bell, n)) {
				gz_store(&pair_sock(a, n)->end[a->pair->side].aux[GZ_AUX_READY], gz_stamp());
				stamped = true;
			}
			gz_bell_ring(bell, n);
		}
	}
	if (!any && n && !gz_load(&pair_sock(a, n)->end[!a->pair->side].aux[GZ_AUX_HOLDERS])) {
		pair_ring(a, 0); /* not accepted yet: a listener may wait for it to say something */
		return;
	}
	gz_fence(); /* pairs with the sleeper's, between declaring and looking again */
	for (uint32_t w = 0; w < GZ_PAIR_QUEUE_WORDS; w++)
		for (uint64_t q = queues[w]; q; q &= q - 1) {
			uint32_t k = w * 64 + (uint32_t)__builtin_ctzll(q);

			if (__builtin_expect(gz_load(&to->to[k].asleep), 0))
				wake(a, to, k);
		}
}

void pair_hold(struct attachment *a, uint32_t side, uint32_t n, uint32_t member)
{
	gz_add(&pair_sock(a, n)->end[side].aux[GZ_AUX_HOLDERS], 1);
	gz_or(&a->pair->shared->side[side].holds[member][n / 64], 1ull << n % 64);
}

/* Nobody holds this end any more: FIN, or a reset if data is unread or asked for. */
static void close_end(struct attachment *a, uint32_t side, uint32_t n)
{
	struct gz_end *end = &pair_sock(a, n)->end[side], *other = &pair_sock(a, n)->end[!side];
	uint32_t flags = gz_load(&end->flags) & ~(uint32_t)GZ_WORKER_OPEN;

	if (gz_load_acquire(&other->out_head) != gz_load(&end->in_tail) || flags & GZ_APP_ABORT) {
		/* To a side that has had our FIN already it is a write to a closed pipe. */
		gz_store(&end->error, flags & GZ_WORKER_FIN ? EPIPE : ECONNRESET);
		flags |= GZ_WORKER_DEAD;
	} else {
		flags |= GZ_WORKER_FIN;
	}
	gz_store_release(&end->flags, flags); /* the error is written, and so is every byte before the FIN */
	if (side == a->pair->side)
		pair_ring(a, n);
}

void pair_release(struct attachment *a, uint32_t side, uint32_t n, uint32_t member)
{
	uint64_t bit = 1ull << n % 64;

	if (!(gz_and(&a->pair->shared->side[side].holds[member][n / 64], ~bit) & bit))
		return;
	if (gz_add(&pair_sock(a, n)->end[side].aux[GZ_AUX_HOLDERS], (uint32_t)-1) == 1)
		close_end(a, side, n);
}

void pair_recall(struct attachment *a, uint32_t n)
{
	struct pair *pair = a->pair;

	lock_take(&a->post);
	if (pair->recents < sizeof(pair->recent) / sizeof(pair->recent[0]))
		pair->recent[pair->recents++] = n;
	lock_give(&a->post);
}

bool pair_nobody_reads(const struct sock *s)
{
	uint32_t flags = gz_load_acquire(&s->peer->flags); /* what it consumed before it closed is seen */

	return flags & GZ_WORKER_FIN && (!(flags & GZ_WORKER_OPEN) || flags & GZ_APP_SHUT_RD) &&
	       gz_load(&s->me->out_head) != gz_load(&s->peer->in_tail);
}
