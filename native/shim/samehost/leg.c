/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gazelle/wake.h>

#include "worker/attach.h"
#include "worker/control.h"
#include "core/eventq.h"
#include "worker/program.h"
#include "core/fdtable.h"
#include "samehost/pair_parts.h"
#include "core/real.h"
#include "core/sock.h"
#include "core/watch.h"

#define LEG_BUDGET 64u /* messages of one leg at a time: whoever is there may never stop talking */
#define DROP_PATIENCE_NS 10000000ull

#define LEG_EACH(pair, m)                               \
	for (uint32_t m = 0; m < (pair)->legs_end; m++) \
		if ((pair)->leg_fd[m] > 0)

/* ------------------------------------------------------------------ what members say */

static int say_queue(int leg, uint32_t q, int fd)
{
	struct gz_message message = { .kind = GZ_MESSAGE_EVENT_QUEUE, .number = q };

	return control_send(leg, &message, fd);
}

void pair_announce(struct link *link, uint32_t queue, int fd)
{
	struct pair *pair = link->pair;
	uint32_t q = gz_load(&pair->queue[queue]);
	int err = 0;

	if (!q)
		return; /* it has no say here */
	lock_take(&link->post);
	LEG_EACH(pair, m)
	{
		/* One that is gone need not know; one that does not read keeps us from a long sleep. */
		int got = say_queue(pair->leg_fd[m], q - 1, fd);

		if (got == -EAGAIN)
			err = got;
	}
	if (!err)
		gz_or(&link->announced, 1ull << queue);
	lock_give(&link->post);
}

bool pair_hears(struct link *link, uint32_t queue)
{
	struct pair *pair = link->pair;
	uint32_t known = gz_load(&pair->legs);

	if (pair->twin && pair->leg_fd[pair->twin->pair->member] <= 0)
		known++; /* we wake ourselves */
	/* Two sides that fork at the same moment may not know of each other's child. */
	if (gz_load(&pair_other_side(link)->processes) > known && known)
		return false;
	if (!gz_load(&pair->queue[queue]))
		return !gz_load(&pair->crowded);
	return gz_load(&link->announced) >> queue & 1;
}

static void close_leg(struct link *link, uint32_t m)
{
	fd_own_close(&link->pair->leg_fd[m]);
	gz_add(&link->pair->legs, (uint32_t)-1);
	gz_add(&shim.legs, (uint32_t)-1);
}

void leg_add(struct link *link, uint32_t member, uint32_t life, int fd)
{
	struct pair *pair = link->pair;

	if (pair->leg_fd[member] > 0) {
		/* Who was there has died, and another of us has let go for it; or it is nonsense. */
		close_leg(link, member);
		pair->changed = true;
	}
	pair->leg_life[member] = life;
	if (pair->legs_end <= member)
		pair->legs_end = member + 1;
	fd_own(fd, &pair->leg_fd[member]);
	gz_add(&pair->legs, 1);
	gz_add(&shim.legs, 1);
	/* What others were told before this one came. */
	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++)
		if (gz_load(&link->announced) >> k & 1 && gz_load(&pair->queue[k]) &&
		    say_queue(pair->leg_fd[member], gz_load(&pair->queue[k]) - 1, eventq_out(k)))
			gz_and(&link->announced, ~(1ull << k));
}

static void said(struct link *link, const struct gz_message *message, int *fds, int count)
{
	struct pair *pair = link->pair;

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
		leg_add(link, message->member, message->life, fds[0]);
		return;
	}
	while (count > 0)
		UNCANCELLED(close, fds[--count]);
}

/* False: whoever was there is gone. Adds to *heard how many messages there were. */
static bool hear_one(struct link *link, uint32_t m, uint32_t *heard)
{
	struct gz_message message;
	int fds[GZ_WELCOME_FDS], count, got = 0;

	for (uint32_t i = 0; i < LEG_BUDGET; i++) {
		got = control_receive(link->pair->leg_fd[m], &message, fds, &count);
		if (got <= 0)
			break;
		++*heard;
		said(link, &message, fds, count);
	}
	return got >= 0;
}

bool leg_hear(struct link *link)
{
	uint32_t heard = 0;

	LEG_EACH(link->pair, m)
	{
		(void)hear_one(link, m, &heard);
	}
	return heard;
}

uint32_t pair_poll(struct link *link, struct pollfd *fds, uint32_t room)
{
	uint32_t n = 0;

	LEG_EACH(link->pair, m)
	{
		if (n < room)
			fds[n++] = (struct pollfd){ .fd = link->pair->leg_fd[m], .events = POLLIN };
	}
	return n;
}

/* ------------------------------------------------------------------ deaths */

/* In the place of a member of the other side that has died: lets go of what it held. One of us does, the others wait for that. */
static void drop(struct link *link, uint32_t m, uint32_t life)
{
	struct gz_pair_side *side = pair_other_side(link);
	uint32_t word = GZ_MEMBER(life, GZ_MEMBER_ALIVE), other = !link->pair->side;
	uint64_t until = now_ns() + DROP_PATIENCE_NS;

	if (!gz_cas(&side->member[m], &word, GZ_MEMBER(life, GZ_MEMBER_DYING))) {
		while (gz_load_acquire(&side->member[m]) == GZ_MEMBER(life, GZ_MEMBER_DYING) && now_ns() < until)
			sched_yield();
		return;
	}
	for (uint32_t w = 0; w < GZ_PAIR_SOCKS / 64; w++)
		for (uint64_t bits = gz_load(&side->holds[m][w]); bits; bits &= bits - 1)
			pair_release(link, other, w * 64 + (uint32_t)__builtin_ctzll(bits), m);
	for (uint32_t q = 0; q < GZ_PAIR_QUEUES; q++) {
		word = m + 1;
		(void)gz_cas(&side->owner[q], &word, 0);
	}
	gz_add(&side->processes, (uint32_t)-1);
	gz_store_release(&side->member[m], GZ_MEMBER(life, GZ_MEMBER_FREE)); /* pairs with the waiting above, and with a taker */
}

static void activate_all(struct link *link)
{
	for (uint32_t n = 1; n < GZ_PAIR_SOCKS && gz_load(&link->used); n++) {
		struct sock *sock = gz_load(&link->socks[n]);

		if (sock)
			watch.activate(sock);
	}
	eventq_wake_all();
}

static void leg_lost(struct link *link, uint32_t m)
{
	lock_take(&link->post);
	close_leg(link, m);
	lock_give(&link->post);
	drop(link, m, link->pair->leg_life[m]);
	link->pair->changed = true;
}

void pair_check(struct link *link)
{
	struct pair *pair = link->pair;
	uint64_t lost[GZ_PAIR_MEMBERS / 64] = { 0 };
	uint32_t heard = 0;

	lock_take(&link->post);
	LEG_EACH(pair, m)
	{
		if (!hear_one(link, m, &heard))
			lost[m / 64] |= 1ull << m % 64;
	}
	lock_give(&link->post);
	for (uint32_t w = 0; w < GZ_PAIR_MEMBERS / 64; w++)
		for (uint64_t bits = lost[w]; bits; bits &= bits - 1)
			leg_lost(link, w * 64 + (uint32_t)__builtin_ctzll(bits));
	if (pair->changed) {
		pair->changed = false;
		activate_all(link);
	}
	/* What the last ones had connected before they died can still be accepted. */
	if (!gz_load(&pair->legs) && !pair->twin && (!pair->side || arrival_none(link)))
		attach_lost(link);
}

void pair_lost(struct link *link)
{
	struct pair *pair = link->pair;

	lock_take(&link->post);
	LEG_EACH(pair, m)
	{
		close_leg(link, m);
	}
	if (pair->twin)
		pair->twin->pair->twin = NULL;
	pair->twin = NULL;
	if (pair->memory_fd > 0)
		fd_own_close(&pair->memory_fd);
	lock_give(&link->post);
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

/* A leg from the child to whom the leg `to` leads, who is told over it. The child's end, or -1. */
static int child_leg(int to, uint32_t place, uint32_t life)
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

/* The other side is this process, and it has no leg to itself, as the child of one that had. */
static int child_leg_to_twin(struct link *twin, uint32_t place, uint32_t life)
{
	int ends[2];

	if (REAL(socketpair)(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
		return -1;
	leg_add(twin, place, life, ends[1]);
	return ends[0];
}

/* It is to hold number n, or all that we hold (0). */
static void prepare_child(struct link *link, uint32_t n)
{
	struct pair *pair = link->pair;
	struct gz_pair_side *mine = pair_our_side(link);
	uint32_t life;

	memset(pair->child_fd, -1, sizeof(pair->child_fd));
	pair->child = pair->member == PAIR_NOBODY ? PAIR_NOBODY : take_place(mine);
	if (pair->child == PAIR_NOBODY)
		return;
	life = GZ_MEMBER_LIFE(gz_load(&mine->member[pair->child]));
	if (n)
		pair_hold(link, pair->side, n, pair->child);
	for (uint32_t w = 0; !n && w < GZ_PAIR_SOCKS / 64; w++)
		for (uint64_t bits = gz_load(&mine->holds[pair->member][w]); bits; bits &= bits - 1)
			pair_hold(link, pair->side, w * 64 + (uint32_t)__builtin_ctzll(bits), pair->child);
	LEG_EACH(pair, m)
	{
		pair->child_fd[m] = child_leg(pair->leg_fd[m], pair->child, life);
	}
	if (pair->twin && pair->leg_fd[pair->twin->pair->member] <= 0) {
		uint32_t m = pair->twin->pair->member;

		pair->child_fd[m] = child_leg_to_twin(pair->twin, pair->child, life);
		pair->leg_life[m] = GZ_MEMBER_LIFE(gz_load(&pair_other_side(link)->member[m]));
	}
}

void pair_before_fork(void)
{
	PAIR_EACH(link, i)
	{
		lock_take(&link->post);
		(void)leg_hear(link); /* who came lately, and how to wake them */
	}
	PAIR_EACH(link, i)
	{
		prepare_child(link, 0);
	}
}

bool pair_accepts(const struct link *link)
{
	return link->pair->side;
}

void pair_note(const struct link *link, uint32_t n, struct program_note *note)
{
	const struct pair *pair = link->pair;

	*note = (struct program_note){ .paired = 1, .side = pair->side, .n = n };
	note->dev = pair->dev;
	note->ino = pair->inode;
	note->uid = pair->uid;
	note->netns = pair->netns;
}

bool pair_leave(struct link *link, struct pair_image *image)
{
	struct pair *pair = link->pair;

	if (pair->child == PAIR_NOBODY || pair->memory_fd <= 0)
		return false;
	image->memory_fd = pair->memory_fd;
	image->side = pair->side;
	image->member = pair->child;
	image->uid = pair->uid;
	image->netns = pair->netns;
	image->legs = 0;
	for (uint32_t m = 0; m < GZ_PAIR_MEMBERS; m++) {
		if (pair->child_fd[m] < 0)
			continue;
		image->leg[image->legs].fd = pair->child_fd[m];
		image->leg[image->legs].member = m;
		image->leg[image->legs++].life = pair->leg_life[m];
	}
	return true;
}

static void close_child_legs(struct link *link)
{
	for (uint32_t m = 0; m < GZ_PAIR_MEMBERS; m++)
		if (link->pair->child_fd[m] >= 0)
			UNCANCELLED(close, link->pair->child_fd[m]);
}

bool pair_give(struct link *link, uint32_t n, struct pair_image *image)
{
	lock_take(&link->post);
	if (link->pair->twin) /* it may be given a leg to the child */
		lock_take(&link->pair->twin->post);
	(void)leg_hear(link);
	prepare_child(link, n);
	if (pair_leave(link, image))
		return true;
	pair_given(link);
	return false;
}

void pair_given(struct link *link)
{
	close_child_legs(link);
	if (link->pair->twin)
		lock_give(&link->pair->twin->post);
	lock_give(&link->post);
}

void pair_after_fork_in_parent(void)
{
	/* If there is no child, its legs end here, and the other side lets go of what it was to hold. */
	PAIR_EACH(link, i)
	{
		close_child_legs(link);
		lock_give(&link->post);
	}
}

static void become_child(struct link *link)
{
	struct pair *pair = link->pair;

	LEG_EACH(pair, m)
	{
		close_leg(link, m);
	}
	pair->legs_end = 0;
	pair->inherited = true;
	pair->member = pair->child;
	gz_store(&link->announced, 0);
	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++)
		gz_store(&pair->queue[k], 0);
	for (uint32_t m = 0; m < GZ_PAIR_MEMBERS; m++)
		if (pair->child_fd[m] >= 0)
			leg_add(link, m, pair->leg_life[m], pair->child_fd[m]);
}

void pair_after_fork_in_child(uint64_t queues)
{
	PAIR_EACH(link, i)
	{
		link->post.word = 0;
		become_child(link);
		if (link->pair->member == PAIR_NOBODY)
			attach_lost(link); /* no place was left: nothing of it is ours */
	}
	arrival_after_fork(queues);
	/* Our queues have other numbers than the parent's. */
	PAIR_EACH(link, i)
	{
		for (uint32_t n = 1; n < GZ_PAIR_SOCKS && gz_load(&link->used); n++) {
			struct sock *sock = gz_load(&link->socks[n]);

			if (sock && sock->items)
				watch.claim(sock, link, n);
		}
	}
}
