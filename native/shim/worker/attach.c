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
#include "worker/link.h"
#include "stream/listen.h"
#include "worker/mapping.h"
#include "samehost/pair.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"
#include "core/watch.h"

/* The program's first socket may wait this long for a worker that is just starting, and longer for one that waits for a CPU. */
#define FIRST_PATIENCE_MS 500
#define MEND_NS 20000000ull
#define EAGER_TRIES 50u /* so often at that pace, then so often at half of it, and so on, but never slower than */
#define MEND_LATE_NS 1000000000ull
#define REFUSED_NS 1000000000ull /* one that refuses us (full, or of another version) is asked less often */

static struct link *all;            /* every link there ever was; shim.lock */
static int pending[GZ_WORKERS_MAX]; /* HELLO sent, no answer yet: slots of fd_own, 0 or -1 = none; shim.lock */

int attach_await(struct link *link, int control_fd, uint32_t kind, struct gz_message *message, int *fds, int *count,
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
		if (got && link)
			attach_said(link, message, fds, *count);
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

/* ------------------------------------------------------------------ links */

/* A link nobody uses any more, or a new one. */
struct link *attach_take_link(bool pair)
{
	struct link *link;

	for (link = all; link; link = link->next)
		if (link->buried && (link->pair != NULL) == pair)
			return link;
	link = calloc(1, sizeof(*link));
	if (!link)
		return NULL;
	link->socks = mapping_of(-1, GZ_SOCKS_MAX * sizeof(*link->socks), PROT_READ | PROT_WRITE, NULL);
	if (!link->socks) {
		free(link);
		return NULL;
	}
	link->buried = true;
	link->next = all;
	all = link;
	return link;
}

/* Gives back the memory of dead links whose sockets are all gone; the addresses stay, see link.h. shim.lock held. */
static void bury_unused(void)
{
	for (struct link *link = all; link; link = link->next) {
		if (link->buried || !gz_load(&link->dead) || gz_load(&link->used))
			continue;
		(void)mapping_of(-1, link->arena_size, PROT_READ | PROT_WRITE, link->arena);
		link->buried = true;
	}
}

void attach_wake_by_control(struct link *link)
{
	int fd;

	/* The number is kept: a thread that still rings for the last worker must not write to a stranger's file. */
	if (link->wake_fd > 0) {
		(void)REAL(dup3)(link->control_fd, link->wake_fd, O_CLOEXEC);
		return;
	}
	fd = REAL(fcntl)(link->control_fd, F_DUPFD_CLOEXEC, 0);
	if (fd >= 0)
		fd_own(fd, &link->wake_fd);
}

void attach_publish(struct link *link)
{
	link->buried = link->unclaimed = false;
	gz_store(&link->woken, 0);
	link->serial = ++shim.links_serial;
	gz_store(&link->announced, 0);
	gz_store(&link->used, 0);
	if (shim.links_end < shim.workers)
		shim.links_end = shim.workers;
	if (shim.links_end <= link->slot)
		shim.links_end = link->slot + 1;
	gz_store_release(&link->dead, false);
	gz_store_release(&shim.links[link->slot], link);
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
	struct link *link;

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
	link = attach_take_link(false);
	err = -ENOMEM;
	if (!link)
		goto err_close_fds;
	link->slot = index;
	link->queue_id = message.number;
	err = mapping_all(link, &message, fds);
	if (err)
		goto err_close_fds;
	UNCANCELLED(close, fds[GZ_WELCOME_ARENA]);
	UNCANCELLED(close, fds[GZ_WELCOME_CHANNEL]);
	UNCANCELLED(close, fds[GZ_WELCOME_PAGE]);
	fd_own_move(&pending[index], &link->control_fd);
	attach_wake_by_control(link);
	attach_publish(link);
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
	uint64_t ns = MEND_NS;

	for (uint32_t late = tries / EAGER_TRIES; late && ns < MEND_LATE_NS; late--)
		ns *= 2;
	return ns < MEND_LATE_NS ? ns : MEND_LATE_NS;
}

static uint32_t attach_missing(int patience_ms)
{
	uint32_t live = 0, missing = 0;
	uint64_t again = 0;
	int kept = errno; /* the program's */

	/* All at once, so that those who answer late do so together. */
	for (uint32_t i = 0; i < shim.workers; i++)
		if (!gz_load(&shim.links[i]) && pending[i] <= 0)
			(void)say_hello(i);
	for (uint32_t i = 0; i < shim.workers; i++) {
		bool fresh = false;

		if (!gz_load(&shim.links[i])) {
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
		listen_restore(gz_load(&shim.links[i]));
		dgram_restore(gz_load(&shim.links[i]));
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

void attach_mend(void)
{
	if (!gz_load(&shim.missing) || now_ns() < gz_load(&shim.retry_ns) || !shim_try_lock())
		return;
	bury_unused();
	attach_missing(0);
	shim_unlock();
}

void attach_insist(int patience_ms)
{
	shim_lock();
	bury_unused();
	attach_missing(patience_ms);
	shim_unlock();
}

/* ------------------------------------------------------------------ death */

void attach_lost(struct link *link)
{
	gz_store_release(&link->dead, true);
	gz_store(&shim.links[link->slot], NULL);
	if (!link->pair && link->control_fd >= 0)
		(void)REAL(shutdown)(link->control_fd, SHUT_RDWR); /* it lives on under the number of wake_fd */
	fd_own_close(&link->control_fd);
	if (link->pair)
		pair_lost(link);
	if (!link->pair) {
		gz_add(&shim.missing, 1);
		gz_store(&shim.tries, 0);
		gz_store(&shim.retry_ns, 0);
		listen_lost(link);
		dgram_lost(link);
	}
	for (uint32_t n = 1; n < GZ_SOCKS_MAX && gz_load(&link->used); n++) {
		struct sock *sock = gz_load(&link->socks[n]);

		if (sock)
			watch.activate(sock);
	}
	eventq_wake_all();
}

void attach_said(struct link *link, const struct gz_message *message, int *fds, int count)
{
	if (message->kind == GZ_MESSAGE_PAIRED)
		pair_arrived(link, message, fds, count);
	else if (message->kind == GZ_MESSAGE_LEG)
		pair_leg_arrived(link, message, fds, count);
	else
		control_close(fds, count);
}

void attach_check(void)
{
	if (!shim_try_lock())
		return; /* another thread is at it */
	gz_store(&shim.checked_ns, now_ns());
	LINK_EACH(link, i)
	{
		struct gz_message message;
		int fds[GZ_WELCOME_FDS], count, got;

		if (link->pair) {
			pair_check(link);
			continue;
		}
		while ((got = control_receive(link->control_fd, &message, fds, &count)) > 0)
			attach_said(link, &message, fds, count);
		if (got < 0)
			attach_lost(link);
	}
	shim_unlock();
}

bool attach_free_ports(void)
{
	struct gz_request request = { .op = GZ_REQUEST_LOOK };
	bool any = false;

	program_claim_all();
	WORKER_EACH(link, i)
	{
		any |= link->channel && !link_post(link, &request);
	}
	attach_await_all();
	return any;
}

void attach_await_all(void)
{
	WORKER_EACH(link, i)
	{
		if (link->channel)
			link_await(link);
	}
}

void attach_after_fork(void)
{
	for (uint32_t i = 0; i < GZ_WORKERS_MAX; i++)
		if (pending[i] > 0)
			fd_own_close(&pending[i]);
}
