/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gazelle/wake.h>

#include "core/lost.h"
#include "worker/control.h"
#include "core/eventq.h"
#include "worker/program.h"
#include "core/fdtable.h"
#include "samehost/pair_parts.h"
#include "core/real.h"
#include "core/sock.h"
#include "core/watch.h"

#define MEMBER_BUDGET 64u /* messages of one member socket at a time: whoever is there may never stop talking */
#define DROP_PATIENCE_NS 10000000ull

#define MEMBER_EACH(pair, m)                               \
	for (uint32_t m = 0; m < (pair)->members_end; m++) \
		if ((pair)->member_fd[m] > 0)

/* ------------------------------------------------------------------ what members say */

static int say_queue(int member_fd, uint32_t q, int fd)
{
	struct gz_message message = { .kind = GZ_MESSAGE_EVENT_QUEUE, .number = q };

	return control_send(member_fd, &message, fd);
}

void pair_announce(struct attachment *a, uint32_t queue, int fd)
{
	struct pair *pair = a->pair;
	uint32_t q = gz_load(&pair->queue[queue]);
	int err = 0;

	if (!q)
		return; /* it has no say here */
	lock_take(&a->post);
	MEMBER_EACH(pair, m)
	{
		/* One that is gone need not know; one that does not read keeps us from a long sleep. */
		int got = say_queue(pair->member_fd[m], q - 1, fd);

		if (got == -EAGAIN)
			err = got;
	}
	if (!err)
		gz_or(&a->announced, 1ull << queue);
	lock_give(&a->post);
}

bool pair_hears(struct attachment *a, uint32_t queue)
{
	struct pair *pair = a->pair;
	uint32_t known = gz_load(&pair->members);

	if (pair->opposite && pair->member_fd[pair->opposite->pair->member] <= 0)
		known++; /* we wake ourselves */
	/* Two sides that fork at the same moment may not know of each other's child. */
	if (gz_load(&pair_other_side(a)->processes) > known && known)
		return false;
	if (!gz_load(&pair->queue[queue]))
		return !gz_load(&pair->crowded);
	return gz_load(&a->announced) >> queue & 1;
}

static void close_member(struct attachment *a, uint32_t m)
{
	fd_own_close(&a->pair->member_fd[m]);
	gz_add(&a->pair->members, (uint32_t)-1);
	gz_add(&shim.members, (uint32_t)-1);
}

void member_add(struct attachment *a, uint32_t member, uint32_t life, int fd)
{
	struct pair *pair = a->pair;

	if (pair->member_fd[member] > 0) {
		/* Who was there has died, and another of us has let go for it; or it is nonsense. */
		close_member(a, member);
		pair->changed = true;
	}
	pair->member_life[member] = life;
	if (pair->members_end <= member)
		pair->members_end = member + 1;
	fd_own(fd, &pair->member_fd[member]);
	gz_add(&pair->members, 1);
	gz_add(&shim.members, 1);
	/* What others were told before this one came. */
	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++)
		if (gz_load(&a->announced) >> k & 1 && gz_load(&pair->queue[k]) &&
		    say_queue(pair->member_fd[member], gz_load(&pair->queue[k]) - 1, eventq_out(k)))
			gz_and(&a->announced, ~(1ull << k));
}

static void said(struct attachment *a, const struct gz_message *message, int *fds, int count)
{
	struct pair *pair = a->pair;

	if (message->kind == GZ_MESSAGE_EVENT_QUEUE && count == 1 && message->number < GZ_PAIR_QUEUES &&
	    control_is_pair_end(fds[0])) {
		int *slot = &pair->queue_fd[message->number];

		if (*slot <= 0) {
			fd_own(fds[0], slot);
			return;
		}
		/* The number is kept, for a thread that is just about to wake the last owner. */
		(void)REAL(dup3)(fds[0], *slot, O_CLOEXEC);
	} else if (message->kind == GZ_MESSAGE_LEG && count == 1 && message->member < GZ_PAIR_MEMBERS &&
	           control_is_pair_end(fds[0])) {
		member_add(a, message->member, message->life, fds[0]);
		return;
	}
	while (count > 0)
		UNCANCELLED(close, fds[--count]);
}

/* False: whoever was there is gone. Adds to *heard how many messages there were. */
static bool hear_one(struct attachment *a, uint32_t m, uint32_t *heard)
{
	struct gz_message message;
	int fds[GZ_WELCOME_FDS], count, got = 0;

	for (uint32_t i = 0; i < MEMBER_BUDGET; i++) {
		got = control_receive(a->pair->member_fd[m], &message, fds, &count);
		if (got <= 0)
			break;
		++*heard;
		said(a, &message, fds, count);
	}
	return got >= 0;
}

bool member_receive(struct attachment *a)
{
	uint32_t heard = 0;

	MEMBER_EACH(a->pair, m)
	{
		(void)hear_one(a, m, &heard);
	}
	return heard;
}

uint32_t pair_poll(struct attachment *a, struct pollfd *fds, uint32_t room)
{
	uint32_t n = 0;

	MEMBER_EACH(a->pair, m)
	{
		if (n < room)
			fds[n++] = (struct pollfd){ .fd = a->pair->member_fd[m], .events = POLLIN };
	}
	return n;
}

/* ------------------------------------------------------------------ deaths */

/* In the place of a member of the other side that has died: lets go of what it held. One of us does, the others wait for that. */
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
	close_member(a, m);
	lock_give(&a->post);
	drop(a, m, a->pair->member_life[m]);
	a->pair->changed = true;
}

void pair_check(struct attachment *a)
{
	struct pair *pair = a->pair;
	uint64_t lost[GZ_PAIR_MEMBERS / 64] = { 0 };
	uint32_t heard = 0;

	lock_take(&a->post);
	MEMBER_EACH(pair, m)
	{
		if (!hear_one(a, m, &heard))
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

void pair_lost(struct attachment *a)
{
	struct pair *pair = a->pair;

	lock_take(&a->post);
	MEMBER_EACH(pair, m)
	{
		close_member(a, m);
	}
	if (pair->opposite)
		pair->opposite->pair->opposite = NULL;
	pair->opposite = NULL;
	if (pair->memory_fd > 0)
		fd_own_close(&pair->memory_fd);
	lock_give(&a->post);
}

/* ------------------------------------------------------------------ forks */

/* A free place on our side, ALIVE from now on; PAIR_NOBODY: none. */
static uint32_t take_place(struct gz_pair_side *side)
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

/* A member socket from the child to whom the member socket `to` leads, who is told over it. The child's end, or -1. */
static int connect_child(int to, uint32_t place, uint32_t life)
{
	struct gz_message message = { .kind = GZ_MESSAGE_LEG, .member = place, .life = life };
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
static int connect_child_to_opposite(struct attachment *opposite, uint32_t place, uint32_t life)
{
	int ends[2];

	if (REAL(socketpair)(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
		return -1;
	member_add(opposite, place, life, ends[1]);
	return ends[0];
}

/* It is to hold number n, or all that we hold (0). */
static void prepare_child(struct attachment *a, uint32_t n)
{
	struct pair *pair = a->pair;
	struct gz_pair_side *mine = pair_our_side(a);
	uint32_t life;

	memset(pair->child_fd, -1, sizeof(pair->child_fd));
	pair->child = pair->member == PAIR_NOBODY ? PAIR_NOBODY : take_place(mine);
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
		(void)member_receive(a); /* who came lately, and how to wake them */
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

	if (pair->child == PAIR_NOBODY || pair->memory_fd <= 0)
		return false;
	snapshot->memory_fd = pair->memory_fd;
	snapshot->side = pair->side;
	snapshot->member = pair->child;
	snapshot->uid = pair->uid;
	snapshot->netns = pair->netns;
	snapshot->members = 0;
	for (uint32_t m = 0; m < GZ_PAIR_MEMBERS; m++) {
		if (pair->child_fd[m] < 0)
			continue;
		snapshot->member_fd[snapshot->members].fd = pair->child_fd[m];
		snapshot->member_fd[snapshot->members].member = m;
		snapshot->member_fd[snapshot->members++].life = pair->member_life[m];
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
	(void)member_receive(a);
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
		close_member(a, m);
	}
	pair->members_end = 0;
	pair->inherited = true;
	pair->member = pair->child;
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
			attachment_lost(a); /* no place was left: nothing of it is ours */
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
