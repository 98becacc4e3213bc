/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "samehost/member.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <gazelle/control.h>
#include <gazelle/message.h>

#include "core/eventq.h"
#include "core/fdtable.h"
#include "core/real.h"
#include "worker/control.h"

#define MEMBER_BUDGET 64u /* messages of one member at a time: a hostile one never stops talking */

static int say_queue(int member_fd, uint32_t q, int fd)
{
	struct gz_message message = { .kind = GZ_MESSAGE_EVENT_QUEUE, .number = q };

	return control_send(member_fd, &message, fd);
}

void member_close(struct attachment *a, uint32_t m)
{
	fd_own_close(&a->pair->member_fd[m]);
	gz_add(&a->pair->members, (uint32_t)-1);
	gz_add(&shim.members, (uint32_t)-1);
}

void member_add(struct attachment *a, uint32_t member, uint32_t life, int fd)
{
	struct pair *pair = a->pair;

	if (pair->member_fd[member] > 0) {
		/* The member before has died, and another process of our side has let go for it; or it is nonsense. */
		member_close(a, member);
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

	if (!gz_message_brings(message, (uint32_t)count) || count < 1 || !control_is_pair_end(fds[0])) {
		control_close(fds, count);
		return;
	}
	if (message->kind == GZ_MESSAGE_EVENT_QUEUE && message->number < GZ_PAIR_QUEUES) {
		int *slot = &pair->queue_fd[message->number];

		if (*slot <= 0) {
			fd_own(fds[0], slot);
			return;
		}
		/* The number is kept, for a thread that is just about to wake the last owner. */
		(void)REAL(dup3)(fds[0], *slot, O_CLOEXEC);
	} else if (message->kind == GZ_MESSAGE_MEMBER && message->member < GZ_PAIR_MEMBERS) {
		member_add(a, message->member, message->life, fds[0]);
		return;
	}
	control_close(fds, count);
}

bool member_receive(struct attachment *a, uint32_t m, uint32_t *heard)
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

bool member_receive_all(struct attachment *a)
{
	uint32_t heard = 0;

	MEMBER_EACH(a->pair, m)
	{
		(void)member_receive(a, m, &heard);
	}
	return heard;
}

void member_announce(struct attachment *a, uint32_t queue, int fd)
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

bool member_hears(struct attachment *a, uint32_t queue)
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

void member_wake_all(struct attachment *a)
{
	struct gz_message message = { .kind = GZ_MESSAGE_WAKE };

	MEMBER_EACH(a->pair, m)
	{
		(void)control_send(a->pair->member_fd[m], &message, -1);
	}
}

uint32_t member_poll(struct attachment *a, struct pollfd *fds, uint32_t room)
{
	uint32_t n = 0;

	MEMBER_EACH(a->pair, m)
	{
		if (n < room)
			fds[n++] = (struct pollfd){ .fd = a->pair->member_fd[m], .events = POLLIN };
	}
	return n;
}
