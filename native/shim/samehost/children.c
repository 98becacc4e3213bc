/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "samehost/children.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gazelle/control.h>

#include "core/lost.h"
#include "core/real.h"
#include "core/sock.h"
#include "core/watch.h"
#include "samehost/accept.h"
#include "samehost/member.h"
#include "samehost/pair.h"
#include "worker/control.h"
#include "worker/program.h"

/* The number of a free member on our side, ALIVE from now on; PAIR_NOBODY: none. */
static uint32_t take_member(struct gz_pair_side *side)
{
	for (uint32_t m = 0; m < GZ_PAIR_MEMBERS; m++) {
		uint32_t word = gz_load(&side->member[m]);

		if (GZ_MEMBER_STATE(word) == GZ_MEMBER_FREE &&
		    gz_cas(&side->member[m], &word, GZ_MEMBER(GZ_MEMBER_LIFE(word) + 1, GZ_MEMBER_ALIVE))) {
			gz_add(&side->processes, 1);
			return m;
		}
	}
	return PAIR_NOBODY;
}

/* Makes a socket between the child and the member that socket `to` leads to, and tells that member. The child's end, or -1. */
static int connect_child(int to, uint32_t child, uint32_t life)
{
	struct gz_message message = { .kind = GZ_MESSAGE_MEMBER, .member = child, .life = life };
	int ends[2];

	if (REAL(socketpair)(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
		return -1;
	if (control_send(to, &message, ends[1])) {
		UNCANCELLED(close, ends[0]);
		ends[0] = -1;
	}
	UNCANCELLED(close, ends[1]);
	return ends[0];
}

/* The other side is this process, and it has no member socket to itself, as the child of one that had. */
static int connect_child_to_opposite(struct attachment *opposite, uint32_t child, uint32_t life)
{
	int ends[2];

	if (REAL(socketpair)(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
		return -1;
	member_add(opposite, child, life, ends[1]);
	return ends[0];
}

/* It is to hold number n, or all that we hold (0). */
static void prepare_child(struct attachment *a, uint32_t n)
{
	struct pair *pair = a->pair;
	struct gz_pair_side *mine = pair_our_side(a);
	uint32_t life;

	memset(pair->child_fd, -1, sizeof(pair->child_fd));
	pair->child = pair->member == PAIR_NOBODY ? PAIR_NOBODY : take_member(mine);
	if (pair->child == PAIR_NOBODY)
		return;
	life = GZ_MEMBER_LIFE(gz_load(&mine->member[pair->child]));
	if (n)
		pair_hold(a, pair->side, n, pair->child);
	for (uint32_t w = 0; !n && w < GZ_PAIR_SOCKS / 64; w++)
		for (uint64_t bits = gz_load(&mine->holds[pair->member][w]); bits; bits &= bits - 1)
			pair_hold(a, pair->side, w * 64 + (uint32_t)__builtin_ctzll(bits), pair->child);
	MEMBER_EACH(pair, m)
	{
		pair->child_fd[m] = connect_child(pair->member_fd[m], pair->child, life);
	}
	if (pair->opposite && pair->member_fd[pair->opposite->pair->member] <= 0) {
		uint32_t m = pair->opposite->pair->member;

		pair->child_fd[m] = connect_child_to_opposite(pair->opposite, pair->child, life);
		pair->member_life[m] = GZ_MEMBER_LIFE(gz_load(&pair_other_side(a)->member[m]));
	}
}

void pair_before_fork(void)
{
	PAIR_EACH(a, i)
	{
		lock_take(&a->post);
		(void)member_receive_all(a); /* which members came lately, and how to wake them */
	}
	PAIR_EACH(a, i)
	{
		prepare_child(a, 0);
	}
}

bool pair_accepts(const struct attachment *a)
{
	return a->pair->side;
}

void pair_note(const struct attachment *a, uint32_t n, struct program_note *note)
{
	const struct pair *pair = a->pair;

	*note = (struct program_note){ .paired = 1, .side = pair->side, .n = n };
	note->dev = pair->dev;
	note->ino = pair->inode;
	note->uid = pair->uid;
	note->netns = pair->netns;
}

bool pair_leave(struct attachment *a, struct pair_snapshot *snapshot)
{
	struct pair *pair = a->pair;

	if (pair->child == PAIR_NOBODY || a->memory_fd <= 0)
		return false;
	snapshot->memory_fd = a->memory_fd;
	snapshot->side = pair->side;
	snapshot->member = pair->child;
	snapshot->uid = pair->uid;
	snapshot->netns = pair->netns;
	snapshot->members = 0;
	for (uint32_t m = 0; m < GZ_PAIR_MEMBERS; m++) {
		if (pair->child_fd[m] < 0)
			continue;
		snapshot->socket[snapshot->members].fd = pair->child_fd[m];
		snapshot->socket[snapshot->members].member = m;
		snapshot->socket[snapshot->members++].life = pair->member_life[m];
	}
	return true;
}

static void close_child_sockets(struct attachment *a)
{
	for (uint32_t m = 0; m < GZ_PAIR_MEMBERS; m++)
		if (a->pair->child_fd[m] >= 0)
			UNCANCELLED(close, a->pair->child_fd[m]);
}

bool pair_give(struct attachment *a, uint32_t n, struct pair_snapshot *snapshot)
{
	lock_take(&a->post);
	if (a->pair->opposite) /* it may be given a socket to the child */
		lock_take(&a->pair->opposite->post);
	(void)member_receive_all(a);
	prepare_child(a, n);
	if (pair_leave(a, snapshot))
		return true;
	pair_given(a);
	return false;
}

void pair_given(struct attachment *a)
{
	close_child_sockets(a);
	if (a->pair->opposite)
		lock_give(&a->pair->opposite->post);
	lock_give(&a->post);
}

void pair_after_fork_in_parent(void)
{
	/* If there is no child, its member sockets end here, and the other side lets go of what it was to hold. */
	PAIR_EACH(a, i)
	{
		close_child_sockets(a);
		lock_give(&a->post);
	}
}

static void become_child(struct attachment *a)
{
	struct pair *pair = a->pair;

	MEMBER_EACH(pair, m)
	{
		member_close(a, m);
	}
	pair->members_end = 0;
	pair->inherited = true;
	pair->member = pair->child;
	if (pair->member != PAIR_NOBODY)
		pair_show_pid(a);
	gz_store(&a->announced, 0);
	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++)
		gz_store(&pair->queue[k], 0);
	for (uint32_t m = 0; m < GZ_PAIR_MEMBERS; m++)
		if (pair->child_fd[m] >= 0)
			member_add(a, m, pair->member_life[m], pair->child_fd[m]);
}

void pair_after_fork_in_child(uint64_t queues)
{
	PAIR_EACH(a, i)
	{
		a->post.word = 0;
		become_child(a);
		if (a->pair->member == PAIR_NOBODY)
			attachment_lost(a); /* no member was free: nothing of it is ours */
	}
	accept_after_fork(queues);
	/* Our queues have other numbers than the parent's. */
	PAIR_EACH(a, i)
	{
		for (uint32_t n = 1; n < GZ_PAIR_SOCKS && gz_load(&a->used); n++) {
			struct sock *sock = gz_load(&a->socks[n]);

			if (sock && sock->items)
				watch.claim(sock, a, n);
		}
	}
}
