/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <unistd.h>

#include "worker/attach.h"
#include "worker/control.h"
#include "udp/dgram.h"
#include "core/eventq.h"
#include "worker/program.h"
#include "core/fdtable.h"
#include "worker/attachment.h"
#include "stream/listen.h"
#include "worker/mapping.h"
#include "samehost/pair.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"
#include "core/watch.h"

/* The program's first socket may wait this long for a worker that is just starting, and longer for one that waits for a CPU. */
#define FIRST_PATIENCE_MS 500
#define RETRY_NS 20000000ull
#define EAGER_TRIES 50u /* so often at that pace, then so often at half of it, and so on, but never slower than */
#define RETRY_LATE_NS 1000000000ull
#define REFUSED_NS 1000000000ull /* one that refuses us (full, or of another version) is asked less often */

static struct attachment *all;      /* every attachment there ever was; shim.lock */
static int pending[GZ_WORKERS_MAX]; /* HELLO sent, no answer yet: slots of fd_own, 0 or -1 = none; shim.lock */

int attach_await(struct attachment *a, int control_fd, uint32_t kind, struct gz_message *message, int *fds, int *count,
                 int patience_ms)
{
	struct patience patience;

	patience_begin(&patience, (uint64_t)patience_ms * 1000000ull);
	for (;;) {
		int got = control_receive(control_fd, message, fds, count);

		/* A worker that refuses does not wait for what we say. The kernel tells that first, what was said to us then. */
		if (got == -ECONNRESET)
			got = control_receive(control_fd, message, fds, count);
		if (got < 0)
			return got;
		if (got && message->kind == kind)
			return 0;
		if (got && message->kind == GZ_MESSAGE_REFUSED) {
			control_close(fds, *count);
			message->text[sizeof(message->text) - 1] = '\0';
			shim_refused(message->text);
			return message->status > 0 ? -message->status : -EACCES;
		}
		if (got && a)
			attach_said(a, message, fds, *count);
		else if (got)
			control_close(fds, *count);
		if (got)
			continue;
		uint64_t left = patience_left(&patience, control_fd);
		if (!left)
			return -ETIMEDOUT;
		struct pollfd wait = { .fd = control_fd, .events = POLLIN };
		(void)REAL(poll)(&wait, 1, (int)(left / 1000000ull) + 1);
	}
}

/* ------------------------------------------------------------------ attachments */

/* An attachment nobody uses any more, or a new one. */
struct attachment *attachment_take(bool pair)
{
	struct attachment *a;

	for (a = all; a; a = a->next)
		if (a->unused && (a->pair != NULL) == pair)
			return a;
	a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	a->socks = mapping_of(-1, GZ_SOCKS_MAX * sizeof(*a->socks), PROT_READ | PROT_WRITE, NULL);
	if (!a->socks) {
		free(a);
		return NULL;
	}
	a->unused = true;
	a->next = all;
	all = a;
	return a;
}

/* Gives back the memory of dead attachments whose sockets are all gone; the addresses stay, see attachment.h. shim.lock held. */
static void free_unused(void)
{
	for (struct attachment *a = all; a; a = a->next) {
		if (a->unused || !gz_load(&a->dead) || gz_load(&a->used))
			continue;
		(void)mapping_of(-1, a->arena_size, PROT_READ | PROT_WRITE, a->arena);
		a->unused = true;
	}
}

void attach_wake_by_control(struct attachment *a)
{
	int fd;

	/* The number is kept: a thread that still rings for the last worker must not write to a stranger's file. */
	if (a->wake_fd > 0) {
		(void)REAL(dup3)(a->control_fd, a->wake_fd, O_CLOEXEC);
		return;
	}
	fd = REAL(fcntl)(a->control_fd, F_DUPFD_CLOEXEC, 0);
	if (fd >= 0)
		fd_own(fd, &a->wake_fd);
}

void attachment_publish(struct attachment *a)
{
	a->unused = a->unclaimed = false;
	gz_store(&a->woken, 0);
	a->serial = ++shim.attachments_serial;
	gz_store(&a->announced, 0);
	gz_store(&a->used, 0);
	if (shim.attachments_end < shim.workers)
		shim.attachments_end = shim.workers;
	if (shim.attachments_end <= a->slot)
		shim.attachments_end = a->slot + 1;
	gz_store_release(&a->dead, false);
	gz_store_release(&shim.attachments[a->slot], a);
}

/* ------------------------------------------------------------------ attaching */

static int say_hello(uint32_t index)
{
	struct gz_message hello = { .kind = GZ_MESSAGE_HELLO };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd, err;

	if ((size_t)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/worker.%u.sock", shim.group->run_dir,
	                     shim.queue_id[index]) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	fd = REAL(socket)(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	fd_own(fd, &pending[index]);
	if (REAL(connect)(pending[index], (struct sockaddr *)&addr, sizeof(addr)))
		err = -errno;
	else if (!control_is_workers(pending[index]))
		err = -EACCES; /* somebody has put himself in its place */
	else
		err = control_send(pending[index], &hello, -1);
	if (err == -EPIPE || err == -ECONNRESET)
		err = 0; /* refused already: the reason is there to be read */
	if (err)
		fd_own_close(&pending[index]);
	return err;
}

/* Attaches to one worker, waiting at most that long for its answer; a later call goes on where this one stopped. */
static int attach_one(uint32_t index, int patience_ms)
{
	struct gz_message message;
	int fds[GZ_WELCOME_FDS], count = 0, err = 0;
	struct attachment *a;

	if (pending[index] <= 0)
		err = say_hello(index);
	if (!err)
		err = attach_await(NULL, pending[index], GZ_MESSAGE_WELCOME, &message, fds, &count, patience_ms);
	if (err == -ETIMEDOUT)
		return err;
	if (err)
		goto err_close_pending;
	err = -EPROTO;
	if (count != GZ_WELCOME_FDS)
		goto err_close_fds;
	a = attachment_take(false);
	err = -ENOMEM;
	if (!a)
		goto err_close_fds;
	a->slot = index;
	a->queue_id = message.number;
	err = mapping_all(a, &message, fds);
	if (err)
		goto err_close_fds;
	UNCANCELLED(close, fds[GZ_WELCOME_ARENA]);
	UNCANCELLED(close, fds[GZ_WELCOME_CHANNEL]);
	UNCANCELLED(close, fds[GZ_WELCOME_PAGE]);
	fd_own_move(&pending[index], &a->control_fd);
	attach_wake_by_control(a);
	attachment_publish(a);
	return 0;

err_close_fds:
	control_close(fds, count);
err_close_pending:
	fd_own_close(&pending[index]);
	return err;
}

/* A worker that died is back within moments; one that was stopped may never come back. */
static uint64_t until_next_try(void)
{
	uint32_t tries = gz_add(&shim.tries, 1);
	uint64_t ns = RETRY_NS;

	for (uint32_t late = tries / EAGER_TRIES; late && ns < RETRY_LATE_NS; late--)
		ns *= 2;
	return ns < RETRY_LATE_NS ? ns : RETRY_LATE_NS;
}

static uint32_t attach_missing(int patience_ms)
{
	uint32_t live = 0, missing = 0;
	uint64_t again = 0;
	int kept = errno; /* the program's */

	/* All at once, so that those who answer late do so together. */
	for (uint32_t i = 0; i < shim.workers; i++)
		if (!gz_load(&shim.attachments[i]) && pending[i] <= 0)
			(void)say_hello(i);
	for (uint32_t i = 0; i < shim.workers; i++) {
		bool fresh = false;

		if (!gz_load(&shim.attachments[i])) {
			int err = attach_one(i, patience_ms);

			fresh = !err;
			if (err)
				shim.attach_error = -err;
			if (err == -EACCES || err == -EUSERS || err == -EPROTO)
				again = REFUSED_NS;
			if (err) {
				missing++;
				continue;
			}
		}
		live++;
		if (!fresh)
			continue;
		gz_store(&shim.tries, 0);
		listen_restore(gz_load(&shim.attachments[i]));
		dgram_restore(gz_load(&shim.attachments[i]));
	}
	if (live && *shim.refusal)
		shim_complain("a worker refuses this program", shim.refusal, "the others serve it");
	gz_store(&shim.missing, missing);
	gz_store(&shim.retry_ns, now_ns() + (again ? again : until_next_try()));
	errno = kept;
	return live;
}

uint32_t attach_all(void)
{
	return attach_missing(FIRST_PATIENCE_MS);
}

void attach_retry(void)
{
	if (!gz_load(&shim.missing) || now_ns() < gz_load(&shim.retry_ns) || !shim_try_lock())
		return;
	free_unused();
	attach_missing(0);
	shim_unlock();
}

void attach_wait(int patience_ms)
{
	shim_lock();
	free_unused();
	attach_missing(patience_ms);
	shim_unlock();
}

/* ------------------------------------------------------------------ death */

void attachment_lost(struct attachment *a)
{
	gz_store_release(&a->dead, true);
	gz_store(&shim.attachments[a->slot], NULL);
	if (!a->pair && a->control_fd >= 0)
		(void)REAL(shutdown)(a->control_fd, SHUT_RDWR); /* it lives on under the number of wake_fd */
	fd_own_close(&a->control_fd);
	if (a->pair)
		pair_lost(a);
	if (!a->pair) {
		gz_add(&shim.missing, 1);
		gz_store(&shim.tries, 0);
		gz_store(&shim.retry_ns, 0);
		listen_lost(a);
		dgram_lost(a);
	}
	for (uint32_t n = 1; n < GZ_SOCKS_MAX && gz_load(&a->used); n++) {
		struct sock *sock = gz_load(&a->socks[n]);

		if (sock)
			watch.activate(sock);
	}
	eventq_wake_all();
}

void attach_said(struct attachment *a, const struct gz_message *message, int *fds, int count)
{
	if (message->kind == GZ_MESSAGE_PAIRED)
		pair_introduced(a, message, fds, count);
	else if (message->kind == GZ_MESSAGE_LEG)
		pair_member_introduced(a, message, fds, count);
	else
		control_close(fds, count);
}

void attach_check(void)
{
	if (!shim_try_lock())
		return; /* another thread is at it */
	gz_store(&shim.checked_ns, now_ns());
	ATTACHMENT_EACH(a, i)
	{
		struct gz_message message;
		int fds[GZ_WELCOME_FDS], count, got;

		if (a->pair) {
			pair_check(a);
			continue;
		}
		while ((got = control_receive(a->control_fd, &message, fds, &count)) > 0)
			attach_said(a, &message, fds, count);
		if (got < 0)
			attachment_lost(a);
	}
	shim_unlock();
}

bool attach_free_ports(void)
{
	struct gz_request request = { .op = GZ_REQUEST_LOOK };
	bool any = false;

	program_claim_all();
	WORKER_EACH(a, i)
	{
		any |= a->channel && !attachment_post(a, &request);
	}
	attach_await_all();
	return any;
}

void attach_await_all(void)
{
	WORKER_EACH(a, i)
	{
		if (a->channel)
			attachment_await(a);
	}
}

void attach_after_fork(void)
{
	for (uint32_t i = 0; i < GZ_WORKERS_MAX; i++)
		if (pending[i] > 0)
			fd_own_close(&pending[i]);
}
