/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "samehost/introduce.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/message.h>

#include "core/eventq.h"
#include "core/fdtable.h"
#include "core/mapping.h"
#include "core/real.h"
#include "core/window.h"
#include "samehost/accept.h"
#include "samehost/member.h"
#include "samehost/pair.h"
#include "worker/control.h"
#include "worker/entries.h"

bool introduce_is_ours(const struct attachment *a)
{
	return !gz_load(&a->dead) && !a->pair->side && !a->pair->inherited;
}

static int map_pair(struct attachment *a, int fd)
{
	struct gz_pair *pair = mapping_sealed(fd, GZ_PAIR_HEADER, a->arena);
	int err;

	if (!pair)
		return -errno;
	a->arena = (struct gz_arena *)pair;
	a->arena_size = GZ_PAIR_SIZE;
	a->blocks_from = GZ_PAIR_HEADER;
	err = window_open(a, fd);
	if (err)
		return err;
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
	pair_show_pid(a);
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

struct attachment *introduce_inherited(const struct pair_snapshot *snapshot)
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
	UNCANCELLED(close, snapshot->memory_fd);
	for (uint32_t i = 0; i < snapshot->members; i++)
		member_add(a, snapshot->socket[i].member % GZ_PAIR_MEMBERS, snapshot->socket[i].life,
		           snapshot->socket[i].fd);
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

struct attachment *introduce_passed(const struct pair_snapshot *snapshot, uint32_t n, bool *taken)
{
	struct attachment *a;
	struct stat st;

	*taken = false;
	if (snapshot->side > 1 || snapshot->member >= GZ_PAIR_MEMBERS || fstat(snapshot->memory_fd, &st))
		return NULL;
	a = like(snapshot->side, &st);
	if (!a) {
		a = introduce_inherited(snapshot);
		*taken = a != NULL;
		if (a && a->pair->side)
			accept_begin(a);
		return a;
	}
	if (!(gz_load(&pair_our_side(a)->holds[a->pair->member][n / 64]) >> n % 64 & 1))
		pair_hold(a, snapshot->side, n, a->pair->member);
	pair_release(a, snapshot->side, n, snapshot->member); /* the member is freed when its sockets end */
	return a;
}

static void introduce_program(struct attachment *worker, const struct gz_message *message, int *fds, int count)
{
	struct attachment *a;
	struct stat st;
	uint32_t slot;

	if (message->status || !gz_message_brings(message, (uint32_t)count) || message->member >= GZ_PAIR_MEMBERS ||
	    message->other >= GZ_PAIR_MEMBERS || !control_is_workers(fds[GZ_PAIRED_SOCKET]))
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
	member_add(a, message->other, message->life, fds[GZ_PAIRED_SOCKET]);
	UNCANCELLED(close, fds[GZ_PAIRED_MEMORY]);
	attachment_publish(a);
	find_opposite(a);
	if (!a->pair->side)
		return;
	/* Connections may have been pushed before we could be rung: all our listeners look now. */
	accept_begin(a);
	entries_activate_listeners();
	eventq_wake_all();
	return;

close_fds:
	control_close(fds, count);
}

static void introduce_member(struct attachment *worker, const struct gz_message *message, int *fds, int count)
{
	struct attachment *youngest = NULL;

	PAIR_EACH(a, i)
	{
		if (introduce_is_ours(a) && a->pair->introducer == worker && (!youngest || a->serial > youngest->serial))
			youngest = a;
	}
	if (youngest && gz_message_brings(message, (uint32_t)count) && message->member < GZ_PAIR_MEMBERS &&
	    control_is_workers(fds[0])) {
		lock_take(&youngest->post);
		member_add(youngest, message->member, message->life, fds[0]);
		lock_give(&youngest->post);
		return;
	}
	control_close(fds, count);
}

void introduce(struct attachment *worker, const struct gz_message *message, int *fds, int count)
{
	if (message->kind == GZ_MESSAGE_PAIRED)
		introduce_program(worker, message, fds, count);
	else if (message->kind == GZ_MESSAGE_MEMBER)
		introduce_member(worker, message, fds, count);
	else
		control_close(fds, count);
}
