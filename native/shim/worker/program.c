/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "worker/program.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gazelle/message.h>

#include "core/attachment.h"
#include "core/lost.h"
#include "core/mapping.h"
#include "worker/answer.h"
#include "worker/attach.h"
#include "worker/control.h"
#include "core/fdtable.h"
#include "worker/mapped.h"
#include "worker/requests.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"
#include "core/watch.h"

#define ANSWER_PATIENCE_MS 1000 /* the worker runs, so it answers soon or never */

/* Asks for an end, which comes with the answer. It or -errno. */
static int ask_for_end(struct attachment *a, struct gz_message *message)
{
	int fds[GZ_WELCOME_FDS], count, err;

	if (a->unclaimed || gz_load(&a->dead))
		return -ENOTCONN;
	err = control_send(a->control_fd, message, -1);
	if (!err)
		err = answer_await(a, a->control_fd, GZ_MESSAGE_FORKED, message, fds, &count, ANSWER_PATIENCE_MS);
	if (err)
		return err;
	if (!message->status && gz_message_brings(message, (uint32_t)count))
		return fds[0];
	control_close(fds, count);
	return message->status > 0 ? -message->status : -EPROTO;
}

int program_fork(struct attachment *a)
{
	struct gz_message message = { .kind = GZ_MESSAGE_FORK };

	return ask_for_end(a, &message);
}

int program_carry(struct attachment *a, uint32_t n, const struct program_note *note)
{
	struct gz_message message = { .kind = GZ_MESSAGE_CARRY, .number = n };

	_Static_assert(sizeof(*note) <= sizeof(message.text), "a note fits");
	memcpy(message.text, note, sizeof(*note));
	return ask_for_end(a, &message);
}

int program_adopt(struct attachment *a, int end, struct program_note *note, uint32_t *n, bool *held)
{
	struct gz_message message = { .kind = GZ_MESSAGE_ADOPT };
	int fds[GZ_WELCOME_FDS], count, err = -ENOTCONN;

	lock_take(&a->post);
	if (a->channel && !gz_load(&a->dead)) {
		request_settle(a); /* what we have let go of before must not take this away again */
		err = control_send(a->control_fd, &message, end);
	}
	if (!err)
		err = answer_await(a, a->control_fd, GZ_MESSAGE_ADOPTED, &message, fds, &count, ANSWER_PATIENCE_MS);
	lock_give(&a->post);
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

void program_drop_later(struct attachment *a, uint32_t n)
{
	/* Lost memory only delays the release to the end of this process. */
	if (!a->dropped)
		a->dropped = calloc(GZ_SOCKS_MAX / 64, sizeof(*a->dropped));
	if (a->dropped)
		a->dropped[n / 64] |= 1ull << (n % 64);
}

void program_tell_dropped(struct attachment *a)
{
	for (uint32_t w = 0; a->dropped && w < GZ_SOCKS_MAX / 64; w++) {
		struct gz_message message = { .kind = GZ_MESSAGE_DROP, .number = w, .drop = a->dropped[w] };

		if (!a->dropped[w])
			continue;
		if (control_send(a->control_fd, &message, -1))
			return; /* it has enough to read for now: with the next one, or the claim */
		a->dropped[w] = 0;
	}
}

void program_dropped(struct attachment *a, uint32_t n)
{
	lock_take(&a->post);
	program_drop_later(a, n);
	program_tell_dropped(a);
	lock_give(&a->post);
}

struct attachment *program_inherit(uint32_t slot, uint32_t queue_id, int control_fd, uint64_t arena_size)
{
	struct attachment *a = attachment_take(PEER_WORKER);

	if (!a || arena_size < sizeof(struct gz_arena) || !control_is_workers(control_fd))
		return NULL;
	/* Where they will be: sockets are made to point there now. Nothing is looked at before the claim. */
	a->arena = mapping_of(-1, sizeof(struct gz_arena), PROT_READ | PROT_WRITE, NULL);
	a->page = mapping_of(-1, sizeof(*a->page), PROT_READ, NULL);
	if (!a->arena || !a->page)
		return NULL;
	a->arena_size = arena_size;
	a->blocks_from = sizeof(struct gz_arena);
	a->slot = slot;
	a->queue_id = queue_id;
	fd_own(control_fd, &a->control_fd);
	attach_wake_by_control(a);
	attachment_publish(a);
	a->unclaimed = a->unmapped = true;
	return a;
}

static int claim(struct attachment *a)
{
	struct gz_message message = { .kind = GZ_MESSAGE_CLAIM };
	int fds[GZ_WELCOME_FDS], count = 0, err;

	err = control_send(a->control_fd, &message, -1);
	if (!err)
		err = answer_await(a, a->control_fd, GZ_MESSAGE_WELCOME, &message, fds, &count, ANSWER_PATIENCE_MS);
	if (err)
		return err;
	if (!gz_message_brings(&message, (uint32_t)count))
		err = -EPROTO;
	else
		err = a->unmapped ? mapped_all(a, &message, fds) : mapped_channel(a, fds[GZ_WELCOME_CHANNEL]);
	a->unmapped = a->unmapped && err;
	control_close(fds, count);
	return err;
}

int program_claim(struct attachment *a)
{
	uint64_t *dropped;
	int err = 0;

	shim_lock();
	if (a->channel || gz_load(&a->dead)) {
		err = a->channel ? 0 : -ECONNRESET;
		goto out; /* another thread was first */
	}
	err = claim(a);
	if (err) {
		attachment_lost(a);
		goto out;
	}
	a->unclaimed = false;
	dropped = a->dropped;
	a->dropped = NULL;
	for (uint32_t w = 0; dropped && w < GZ_SOCKS_MAX / 64; w++)
		for (uint64_t bits = dropped[w]; bits; bits &= bits - 1) {
			struct gz_request request = { .op = GZ_REQUEST_RELEASE,
				                      .sock = w * 64 + (uint32_t)__builtin_ctzll(bits) };
			(void)request_post(a, &request);
		}
	free(dropped);
	for (uint32_t n = 1; n < GZ_SOCKS_MAX && gz_load(&a->used); n++) {
		struct sock *sock = gz_load(&a->socks[n]);

		if (sock)
			watch.claim(sock, a, n);
	}
out:
	shim_unlock();
	return err;
}
