/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "worker/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <unistd.h>

#include <gazelle/message.h>

#include "core/attachment.h"
#include "core/fdtable.h"
#include "core/lost.h"
#include "core/real.h"
#include "core/shim.h"
#include "worker/answer.h"
#include "worker/control.h"
#include "worker/entries.h"
#include "worker/mapped.h"
#include "worker/requests.h"

/* The program's first socket may wait this long for a worker that is just starting, and longer for one that waits for a CPU. */
#define FIRST_PATIENCE_MS 500
#define RETRY_NS 20000000ull
#define EAGER_TRIES 50u /* so often at that pace, then so often at half of it, and so on, but never slower than */
#define RETRY_LATE_NS 1000000000ull
#define REFUSED_NS 1000000000ull /* one that refuses us (full, or of another version) is asked less often */

static int pending[GZ_WORKERS_MAX]; /* HELLO sent, no answer yet: slots of fd_own, 0 or -1 = none; shim.lock */

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
		err = -EACCES; /* a process of another user has taken its place */
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
		err = answer_await(NULL, pending[index], GZ_MESSAGE_WELCOME, &message, fds, &count, patience_ms);
	if (err == -ETIMEDOUT)
		return err;
	if (err)
		goto err_close_pending;
	err = -EPROTO;
	if (!gz_message_brings(&message, (uint32_t)count))
		goto err_close_fds;
	a = attachment_take(PEER_WORKER);
	err = -ENOMEM;
	if (!a)
		goto err_close_fds;
	a->slot = index;
	a->queue_id = message.number;
	err = mapped_all(a, &message, fds);
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

	/* All at once, so that workers that answer late do so together. */
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
		entries_restore(gz_load(&shim.attachments[i]));
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
	attachment_free_unused();
	attach_missing(0);
	shim_unlock();
}

void attach_wait(int patience_ms)
{
	shim_lock();
	attachment_free_unused();
	attach_missing(patience_ms);
	shim_unlock();
}

bool attach_free_ports(void)
{
	struct gz_request request = { .op = GZ_REQUEST_LOOK };
	bool any = false;

	attachment_claim_all();
	WORKER_EACH(a, i)
	{
		any |= a->channel && !request_post(a, &request);
	}
	request_await_all();
	return any;
}

void attach_after_fork(void)
{
	for (uint32_t i = 0; i < GZ_WORKERS_MAX; i++)
		if (pending[i] > 0)
			fd_own_close(&pending[i]);
}
