/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "worker/program.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/attach.h"
#include "worker/control.h"
#include "core/fdtable.h"
#include "worker/link.h"
#include "worker/mapping.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"
#include "core/watch.h"

#define ANSWER_PATIENCE_MS 1000 /* the worker runs, so it answers soon or never */

/* Asks for an end, which comes with the answer. It or -errno. */
static int ask_for_end(struct link *link, struct gz_message *message)
{
	int fds[GZ_WELCOME_FDS], count, err;

	if (link->unclaimed || gz_load(&link->dead))
		return -ENOTCONN;
	err = control_send(link->control_fd, message, -1);
	if (!err)
		err = attach_await(link, link->control_fd, GZ_MESSAGE_FORKED, message, fds, &count, ANSWER_PATIENCE_MS);
	if (err)
		return err;
	if (!message->status && count == 1)
		return fds[0];
	control_close(fds, count);
	return message->status > 0 ? -message->status : -EPROTO;
}

int program_fork(struct link *link)
{
	struct gz_message message = { .kind = GZ_MESSAGE_FORK };

	return ask_for_end(link, &message);
}

int program_carry(struct link *link, uint32_t n, const struct program_note *note)
{
	struct gz_message message = { .kind = GZ_MESSAGE_CARRY, .number = n };

	_Static_assert(sizeof(*note) <= sizeof(message.text), "a note fits");
	memcpy(message.text, note, sizeof(*note));
	return ask_for_end(link, &message);
}

int program_adopt(struct link *link, int end, struct program_note *note, uint32_t *n, bool *held)
{
	struct gz_message message = { .kind = GZ_MESSAGE_ADOPT };
	int fds[GZ_WELCOME_FDS], count, err = -ENOTCONN;

	lock_take(&link->post);
	if (link->channel && !gz_load(&link->dead)) {
		link_settle(link); /* what we have let go of before must not take this away again */
		err = control_send(link->control_fd, &message, end);
	}
	if (!err)
		err = attach_await(link, link->control_fd, GZ_MESSAGE_ADOPTED, &message, fds, &count, ANSWER_PATIENCE_MS);
	lock_give(&link->post);
	if (err)
		return err;
	control_close(fds, count);
	if (message.status)
		return message.status > 0 ? -message.status : -EPROTO;
	memcpy(note, message.text, sizeof(*note));
	*n = message.number % GZ_SOCKS_MAX;
	*held = message.attach_id;
	return 0;
}

void program_drop_later(struct link *link, uint32_t n)
{
	/* Lost memory only delays the release to the end of this process. */
	if (!link->dropped)
		link->dropped = calloc(GZ_SOCKS_MAX / 64, sizeof(*link->dropped));
	if (link->dropped)
		link->dropped[n / 64] |= 1ull << (n % 64);
}

void program_tell_dropped(struct link *link)
{
	for (uint32_t w = 0; link->dropped && w < GZ_SOCKS_MAX / 64; w++) {
		struct gz_message message = { .kind = GZ_MESSAGE_DROP, .number = w, .drop = link->dropped[w] };

		if (!link->dropped[w])
			continue;
		if (control_send(link->control_fd, &message, -1))
			return; /* it has enough to read for now: with the next one, or the claim */
		link->dropped[w] = 0;
	}
}

void program_dropped(struct link *link, uint32_t n)
{
	lock_take(&link->post);
	program_drop_later(link, n);
	program_tell_dropped(link);
	lock_give(&link->post);
}

struct link *program_inherit(uint32_t slot, uint32_t queue_id, int control_fd, uint64_t arena_size)
{
	struct link *link = attach_take_link(false);

	if (!link || arena_size < sizeof(struct gz_arena) || !control_is_workers(control_fd))
		return NULL;
	/* Where they will be: sockets are made to point there now. Nothing is looked at before the claim. */
	link->arena = mapping_of(-1, arena_size, PROT_READ | PROT_WRITE, NULL);
	link->page = mapping_of(-1, sizeof(*link->page), PROT_READ, NULL);
	if (!link->arena || !link->page)
		return NULL;
	link->arena_size = arena_size;
	link->blocks_from = sizeof(struct gz_arena);
	link->slot = slot;
	link->queue_id = queue_id;
	fd_own(control_fd, &link->control_fd);
	attach_wake_by_control(link);
	attach_publish(link);
	link->unclaimed = link->unmapped = true;
	return link;
}

static int claim(struct link *link)
{
	struct gz_message message = { .kind = GZ_MESSAGE_CLAIM };
	int fds[GZ_WELCOME_FDS], count = 0, err;

	err = control_send(link->control_fd, &message, -1);
	if (!err)
		err = attach_await(link, link->control_fd, GZ_MESSAGE_WELCOME, &message, fds, &count, ANSWER_PATIENCE_MS);
	if (err)
		return err;
	if (count != GZ_WELCOME_FDS)
		err = -EPROTO;
	else
		err = link->unmapped ? mapping_all(link, &message, fds) : mapping_channel(link, fds[GZ_WELCOME_CHANNEL]);
	link->unmapped = link->unmapped && err;
	control_close(fds, count);
	return err;
}

int program_claim(struct link *link)
{
	uint64_t *dropped;
	int err = 0;

	shim_lock();
	if (link->channel || gz_load(&link->dead)) {
		err = link->channel ? 0 : -ECONNRESET;
		goto out; /* another thread was first */
	}
	err = claim(link);
	if (err) {
		attach_lost(link);
		goto out;
	}
	link->unclaimed = false;
	dropped = link->dropped;
	link->dropped = NULL;
	for (uint32_t w = 0; dropped && w < GZ_SOCKS_MAX / 64; w++)
		for (uint64_t bits = dropped[w]; bits; bits &= bits - 1) {
			struct gz_request request = { .op = GZ_REQUEST_RELEASE,
				                      .sock = w * 64 + (uint32_t)__builtin_ctzll(bits) };
			(void)link_post(link, &request);
		}
	free(dropped);
	for (uint32_t n = 1; n < GZ_SOCKS_MAX && gz_load(&link->used); n++) {
		struct sock *sock = gz_load(&link->socks[n]);

		if (sock)
			watch.claim(sock, link, n);
	}
out:
	shim_unlock();
	return err;
}

void program_claim_all(void)
{
	WORKER_EACH(link, i)
	{
		if (__builtin_expect(!link->channel, 0))
			(void)program_claim(link); /* a link that cannot be claimed is dead, which the caller sees */
	}
}
