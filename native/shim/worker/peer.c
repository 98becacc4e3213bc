/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "worker/peer.h"

#include <poll.h>
#include <sys/socket.h>

#include <gazelle/control.h>

#include "core/fdtable.h"
#include "core/lost.h"
#include "core/real.h"
#include "core/shim.h"
#include "worker/answer.h"
#include "worker/control.h"
#include "worker/entries.h"
#include "worker/program.h"
#include "worker/requests.h"

/* Without a channel the attachment is one that a child of a fork has not claimed. The claim looks at all levels. */
static void ring_none(struct attachment *a, uint32_t n)
{
	(void)a;
	(void)n;
}

static struct gz_bell *bell_none(struct attachment *a, uint32_t queue)
{
	(void)a;
	(void)queue;
	return NULL;
}

static void interest_none(struct attachment *a, uint32_t n, uint32_t queue, bool on)
{
	(void)a;
	(void)n;
	(void)queue;
	(void)on;
}

static uint64_t interested_none(struct attachment *a, uint32_t n)
{
	(void)a;
	(void)n;
	return 0;
}

static void wake(struct attachment *a, uint32_t sleep)
{
	struct gz_message message = { .kind = GZ_MESSAGE_WAKE };

	/* Noted after it was sent: another thread that finds it noted relies on it. */
	if (!control_send(a->wake_fd, &message, -1))
		gz_store(&a->woken, sleep);
}

static struct gz_sock *entry_of(struct attachment *a, uint32_t n, struct gz_end **me, struct gz_end **peer)
{
	struct gz_sock *entry = attachment_sock(a, n);

	*me = &entry->app;
	*peer = &entry->worker;
	return entry;
}

static uint32_t orphan_flags(const struct sock *s)
{
	(void)s;
	return GZ_WORKER_DEAD;
}

static void let_go(struct attachment *a, uint32_t n)
{
	struct gz_request request = { .op = GZ_REQUEST_RELEASE, .sock = n };

	if (!a->channel) {
		program_dropped(a, n);
		return;
	}
	gz_store(&a->channel->interest[n % GZ_SOCKS_MAX], 0);
	(void)request_post(a, &request);
}

static void announce(struct attachment *a, uint32_t queue, int fd)
{
	struct gz_message message = { .kind = GZ_MESSAGE_EVENT_QUEUE, .number = queue };
	uint64_t bit = 1ull << queue;

	lock_take(&a->post);
	if (!(gz_load(&a->announced) & bit) && !control_send(a->control_fd, &message, fd))
		gz_or(&a->announced, bit);
	lock_give(&a->post);
}

static bool hears(struct attachment *a, uint32_t queue)
{
	return !a->channel || gz_load(&a->announced) >> queue & 1;
}

static uint32_t poll_control(struct attachment *a, struct pollfd *fds, uint32_t room)
{
	if (!room)
		return 0;
	fds[0] = (struct pollfd){ .fd = a->control_fd, .events = POLLIN };
	return 1;
}

static void check(struct attachment *a)
{
	struct gz_message message;
	int fds[GZ_WELCOME_FDS], count, got;

	while ((got = control_receive(a->control_fd, &message, fds, &count)) > 0)
		answer_unasked(a, &message, fds, count);
	if (got < 0)
		attachment_lost(a);
}

static void lost(struct attachment *a)
{
	if (a->control_fd >= 0)
		(void)REAL(shutdown)(a->control_fd, SHUT_RDWR); /* it lives on under the number of wake_fd */
	fd_own_close(&a->control_fd);
	gz_add(&shim.missing, 1);
	gz_store(&shim.tries, 0);
	gz_store(&shim.retry_ns, 0);
	entries_lost(a);
}

const struct peer_ops worker_peer = {
	.kind = PEER_WORKER,
	.numbers = GZ_SOCKS_MAX,
	.ring = ring_none,
	.bell = bell_none,
	.interest = interest_none,
	.interested = interested_none,
	.wake = wake,
	.entry = entry_of,
	.orphan_flags = orphan_flags,
	.let_go = let_go,
	.announce = announce,
	.hears = hears,
	.poll = poll_control,
	.check = check,
	.lost = lost,
	.claim = program_claim,
};
