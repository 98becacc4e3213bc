/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "samehost/peer.h"

#include <sched.h>

#include "core/counts.h"
#include "core/fdtable.h"
#include "core/lost.h"
#include "core/sock.h"
#include "samehost/accept.h"
#include "samehost/member.h"
#include "samehost/pair.h"

#define DROP_PATIENCE_NS 10000000ull

static uint32_t orphan_flags(const struct sock *s)
{
	return gz_load_acquire(&s->peer->flags) & (GZ_WORKER_FIN | GZ_WORKER_DEAD) ? 0 : GZ_WORKER_DEAD;
}

static void let_go(struct attachment *a, uint32_t n)
{
	struct pair *pair = a->pair;

	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++)
		if (gz_load(&pair->queue[k]))
			pair_interest(a, n, k, false);
	/* A connect that gives up before there was room for it never was. */
	if (!pair->side && !(gz_load(&pair_sock(a, n)->end[1].flags) & GZ_WORKER_CONNECTED) && accept_take_back(a, n))
		gz_store(&pair_sock(a, n)->end[1].flags, 0);
	pair_release(a, pair->side, n, pair->member);
	if (!pair->side)
		pair_recall(a, n);
}

/* Lets go of what a member of the other side held that has died. One process of this side does it; the others wait for that. */
static void drop(struct attachment *a, uint32_t m, uint32_t life)
{
	struct gz_pair_side *side = pair_other_side(a);
	uint32_t word = GZ_MEMBER(life, GZ_MEMBER_ALIVE), other = !a->pair->side;
	uint64_t until = now_ns() + DROP_PATIENCE_NS;

	if (!gz_cas(&side->member[m], &word, GZ_MEMBER(life, GZ_MEMBER_DYING))) {
		while (gz_load_acquire(&side->member[m]) == GZ_MEMBER(life, GZ_MEMBER_DYING) && now_ns() < until)
			sched_yield();
		return;
	}
	for (uint32_t w = 0; w < GZ_PAIR_SOCKS / 64; w++)
		for (uint64_t bits = gz_load(&side->holds[m][w]); bits; bits &= bits - 1)
			pair_release(a, other, w * 64 + (uint32_t)__builtin_ctzll(bits), m);
	for (uint32_t q = 0; q < GZ_PAIR_QUEUES; q++) {
		word = m + 1;
		(void)gz_cas(&side->owner[q], &word, 0);
	}
	gz_add(&side->processes, (uint32_t)-1);
	gz_store_release(&side->member[m], GZ_MEMBER(life, GZ_MEMBER_FREE)); /* pairs with the waiting above, and with a taker */
}

static void member_lost(struct attachment *a, uint32_t m)
{
	lock_take(&a->post);
	member_close(a, m);
	lock_give(&a->post);
	drop(a, m, a->pair->member_life[m]);
	a->pair->changed = true;
}

static void check(struct attachment *a)
{
	struct pair *pair = a->pair;
	uint64_t lost[GZ_PAIR_MEMBERS / 64] = { 0 };
	uint32_t heard = 0;

	lock_take(&a->post);
	MEMBER_EACH(pair, m)
	{
		if (!member_receive(a, m, &heard))
			lost[m / 64] |= 1ull << m % 64;
	}
	lock_give(&a->post);
	for (uint32_t w = 0; w < GZ_PAIR_MEMBERS / 64; w++)
		for (uint64_t bits = lost[w]; bits; bits &= bits - 1)
			member_lost(a, w * 64 + (uint32_t)__builtin_ctzll(bits));
	if (pair->changed) {
		pair->changed = false;
		attachment_activate(a);
	}
	/* What the last ones had connected before they died can still be accepted. */
	if (!gz_load(&pair->members) && !pair->opposite && (!pair->side || accept_is_empty(a)))
		attachment_lost(a);
}

static void lost(struct attachment *a)
{
	struct pair *pair = a->pair;

	lock_take(&a->post);
	MEMBER_EACH(pair, m)
	{
		member_close(a, m);
	}
	if (pair->opposite)
		pair->opposite->pair->opposite = NULL;
	pair->opposite = NULL;
	lock_give(&a->post);
}

const struct peer_ops program_peer = {
	.kind = PEER_PROGRAM,
	.numbers = GZ_PAIR_SOCKS,
	.block_max = GZ_PAIR_BLOCK,
	.ring = pair_ring,
	.bell = pair_bell,
	.interest = pair_interest,
	.interested = pair_interested,
	.entry = pair_entry,
	.orphan_flags = orphan_flags,
	.let_go = let_go,
	.count = count_paired,
	.announce = member_announce,
	.hears = member_hears,
	.poll = member_poll,
	.check = check,
	.lost = lost,
};
