/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "attach.h"
#include "dgram.h"
#include "eventq.h"
#include "fdtable.h"
#include "link.h"
#include "listen.h"
#include "pair.h"
#include "real.h"
#include "shim.h"
#include "sock.h"

#define FIRST_PATIENCE_MS 500   /* the program's first socket may wait this long for a worker that is just starting */
#define ANSWER_PATIENCE_MS 1000 /* forks and claims: the worker runs, so it answers soon or never */
#define MEND_NS 20000000ull
#define EAGER_TRIES 50u /* so often at that pace, then so often at half of it, and so on, but never slower than */
#define MEND_LATE_NS 1000000000ull
#define REFUSED_NS 1000000000ull /* one that refuses us (full, or of another version) is asked less often */

static struct link *all;            /* every link there ever was; shim.lock */
static int pending[GZ_WORKERS_MAX]; /* HELLO sent, no answer yet: slots of fd_own, 0 or -1 = none; shim.lock */

/* ------------------------------------------------------------------ messages */

int attach_send(int control_fd, struct gz_message *message, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = message, .iov_len = sizeof(*message) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	message->magic = GZ_ATTACH_MAGIC;
	message->abi_version = GZ_ABI_VERSION;
	if (fd >= 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	return UNCANCELLED(sendmsg, control_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(*message) ? 0
	                                                                                                        : -errno;
}

static void close_fds(int *fds, int count)
{
	while (count > 0)
		if (fds[--count] >= 0)
			REAL(close)(fds[count]);
}

/* One message if there is one. Returns 1, 0 (none yet) or -errno (EPIPE: the peer is gone). fds: room for 4; *count set. */
int attach_receive(int control_fd, struct gz_message *message, int *fds, int *count)
{
	union {
		char buf[CMSG_SPACE(GZ_WELCOME_FDS * sizeof(int)) + CMSG_SPACE(32)]; /* credentials may come along */
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = message, .iov_len = sizeof(*message) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)
	};
	ssize_t n = UNCANCELLED(recvmsg, control_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	*count = 0;
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		/* More come than any message has if the other program of a pair sends them: the room for credentials is
		 * filled with them, too. */
		for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
			int fd;

			memcpy(&fd, (const char *)c + at, sizeof(fd));
			if (*count < (int)GZ_WELCOME_FDS)
				fds[(*count)++] = fd;
			else
				REAL(close)(fd);
		}
	}
	if (!n) { /* the end; or an empty message, which may bring descriptors all the same */
		close_fds(fds, *count);
		return -EPIPE;
	}
	if (n != (ssize_t)sizeof(*message) || message->magic != GZ_ATTACH_MAGIC || message->abi_version != GZ_ABI_VERSION) {
		close_fds(fds, *count);
		return -EPROTO;
	}
	return 1;
}

/* Waits for a message of this kind; others are dropped. 0 or -errno; on 0 the caller closes the fds. */
static int await(struct link *link, int control_fd, uint32_t kind, struct gz_message *message, int *fds, int *count,
                 int patience_ms)
{
	uint64_t until = now_ns() + (uint64_t)patience_ms * 1000000ull;

	for (;;) {
		int got = attach_receive(control_fd, message, fds, count);

		if (got < 0)
			return got;
		if (got && message->kind == kind)
			return 0;
		if (got && message->kind == GZ_MESSAGE_REFUSED) {
			close_fds(fds, *count);
			return message->status > 0 ? -message->status : -EACCES;
		}
		if (got && link)
			attach_said(link, message, fds, *count);
		else if (got)
			close_fds(fds, *count);
		if (got)
			continue;
		uint64_t now = now_ns();
		if (now >= until)
			return -ETIMEDOUT;
		struct pollfd wait = { .fd = control_fd, .events = POLLIN };
		(void)REAL(poll)(&wait, 1, (int)((until - now) / 1000000ull) + 1);
	}
}

/* ------------------------------------------------------------------ memory */

/* Maps `size` bytes of fd, over `at` if that is set (the same size was there before). NULL on failure. */
static void *map(int fd, size_t size, int prot, void *at)
{
	struct stat st;

	if (fd >= 0 && (fstat(fd, &st) || (uint64_t)st.st_size < size)) {
		errno = EPROTO;
		return NULL;
	}
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *p = mmap(at, size, prot, flags | MAP_NORESERVE | (at ? MAP_FIXED : 0), fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static int map_channel(struct link *link, int fd)
{
	/* In the child of a fork the parent's channel must not be written to, so a fresh place; the old one was unmapped. */
	struct gz_channel *channel = map(fd, sizeof(*channel), PROT_READ | PROT_WRITE, NULL);

	if (!channel)
		return -errno;
	if (channel->magic != GZ_CHANNEL_MAGIC || channel->abi_version != GZ_ABI_VERSION) {
		munmap(channel, sizeof(*channel));
		return -EPROTO;
	}
	for (uint32_t i = 0; i < GZ_KERNEL_REASONS; i++)
		gz_store(&channel->kernel_sockets[i], link->slot ? 0 : gz_load(&shim.kernel[i]));
	gz_store(&channel->pair_sockets, link->slot ? 0 : gz_load(&shim.paired));
	link->channel = channel;
	return 0;
}

static int map_all(struct link *link, const struct gz_message *message, const int *fds)
{
	int err;

	link->blocks_from = sizeof(struct gz_arena);
	if (message->channel_size != sizeof(struct gz_channel) || message->arena_size < sizeof(struct gz_arena))
		return -EPROTO;
	if (link->arena && link->arena_size != message->arena_size) {
		munmap(link->arena, link->arena_size);
		link->arena = NULL;
	}
	void *arena = map(fds[GZ_WELCOME_ARENA], message->arena_size, PROT_READ | PROT_WRITE, link->arena);
	if (!arena)
		return -errno;
	link->arena = arena;
	link->arena_size = message->arena_size;
	if (link->arena->magic != GZ_ARENA_MAGIC || link->arena->socks != GZ_SOCKS_MAX)
		return -EPROTO;
	void *page = map(fds[GZ_WELCOME_PAGE], sizeof(*link->page), PROT_READ, (void *)link->page);
	if (!page)
		return -errno;
	link->page = page;
	if (link->channel)
		munmap(link->channel, sizeof(*link->channel));
	link->channel = NULL;
	err = map_channel(link, fds[GZ_WELCOME_CHANNEL]);
	return err;
}

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
	link->socks = map(-1, GZ_SOCKS_MAX * sizeof(*link->socks), PROT_READ | PROT_WRITE, NULL);
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
		(void)map(-1, link->arena_size, PROT_READ | PROT_WRITE, link->arena);
		link->buried = true;
	}
}

int attach_map_pair(struct link *link, int fd)
{
	struct gz_pair *pair = map(fd, GZ_PAIR_SIZE, PROT_READ | PROT_WRITE, link->arena);

	if (!pair)
		return -errno;
	link->arena = (struct gz_arena *)pair;
	link->arena_size = GZ_PAIR_SIZE;
	link->blocks_from = GZ_PAIR_HEADER;
	return pair->magic == GZ_PAIR_MAGIC && pair->abi_version == GZ_ABI_VERSION && pair->socks == GZ_PAIR_SOCKS
	               ? 0
	               : -EPROTO;
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
	else
		err = attach_send(pending[index], &hello, -1);
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
		err = await(NULL, pending[index], GZ_MESSAGE_WELCOME, &message, fds, &count, patience_ms);
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
	err = map_all(link, &message, fds);
	if (err)
		goto err_close_fds;
	REAL(close)(fds[GZ_WELCOME_ARENA]);
	REAL(close)(fds[GZ_WELCOME_CHANNEL]);
	REAL(close)(fds[GZ_WELCOME_PAGE]);
	fd_own_move(&pending[index], &link->control_fd);
	attach_wake_by_control(link);
	attach_publish(link);
	return 0;

err_close_fds:
	close_fds(fds, count);
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
	gz_store(&shim.missing, missing);
	gz_store(&shim.retry_ns, now_ns() + (again ? again : until_next_try()));
	return live;
}

uint32_t attach_all(void)
{
	return attach_missing(FIRST_PATIENCE_MS);
}

void attach_mend(void)
{
	if (!gz_load(&shim.missing) || now_ns() < gz_load(&shim.retry_ns) || !lock_try(&shim.lock))
		return;
	bury_unused();
	attach_missing(0);
	lock_give(&shim.lock);
}

void attach_insist(int patience_ms)
{
	lock_take(&shim.lock);
	bury_unused();
	attach_missing(patience_ms);
	lock_give(&shim.lock);
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
			sock_peer_lost(sock);
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
		close_fds(fds, count);
}

void attach_check(void)
{
	if (!lock_try(&shim.lock))
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
		while ((got = attach_receive(link->control_fd, &message, fds, &count)) > 0)
			attach_said(link, &message, fds, count);
		if (got < 0)
			attach_lost(link);
	}
	lock_give(&shim.lock);
}

/* ------------------------------------------------------------------ forks */

int attach_fork(struct link *link, uint32_t n, uint32_t *attach_id)
{
	struct gz_message message = { .kind = GZ_MESSAGE_FORK, .number = n };
	int pair[2], fds[GZ_WELCOME_FDS], count, err;

	if (link->unclaimed || gz_load(&link->dead))
		return -ENOTCONN;
	if (REAL(socketpair)(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return -errno;
	err = attach_send(link->control_fd, &message, pair[1]);
	REAL(close)(pair[1]);
	if (!err)
		err = await(link, link->control_fd, GZ_MESSAGE_FORKED, &message, fds, &count, ANSWER_PATIENCE_MS);
	if (!err) {
		close_fds(fds, count);
		err = -message.status;
	}
	if (err) {
		REAL(close)(pair[0]);
		return err;
	}
	if (attach_id)
		*attach_id = message.attach_id;
	return pair[0];
}

int attach_adopt(struct link *link, uint32_t attach_id, uint32_t n)
{
	struct gz_message message = { .kind = GZ_MESSAGE_ADOPT, .attach_id = attach_id, .number = n };
	int fds[GZ_WELCOME_FDS], count, err = -ENOTCONN;

	lock_take(&link->post);
	if (link->channel && !gz_load(&link->dead)) {
		link_settle(link); /* what we have let go of before must not take this away again */
		err = attach_send(link->control_fd, &message, -1);
	}
	if (!err)
		err = await(link, link->control_fd, GZ_MESSAGE_ADOPTED, &message, fds, &count, ANSWER_PATIENCE_MS);
	lock_give(&link->post);
	if (err)
		return err;
	close_fds(fds, count);
	return -message.status;
}

void attach_drop_later(struct link *link, uint32_t n)
{
	/* Lost memory only delays the release to the end of this process. */
	if (!link->dropped)
		link->dropped = calloc(GZ_SOCKS_MAX / 64, sizeof(*link->dropped));
	if (link->dropped)
		link->dropped[n / 64] |= 1ull << (n % 64);
}

void attach_tell_dropped(struct link *link)
{
	for (uint32_t w = 0; link->dropped && w < GZ_SOCKS_MAX / 64; w++) {
		struct gz_message message = { .kind = GZ_MESSAGE_DROP, .number = w, .drop = link->dropped[w] };

		if (!link->dropped[w])
			continue;
		if (attach_send(link->control_fd, &message, -1))
			return; /* it has enough to read for now: with the next one, or the claim */
		link->dropped[w] = 0;
	}
}

void attach_dropped(struct link *link, uint32_t n)
{
	lock_take(&link->post);
	attach_drop_later(link, n);
	attach_tell_dropped(link);
	lock_give(&link->post);
}

struct link *attach_inherit(uint32_t slot, uint32_t queue_id, int control_fd, uint64_t arena_size)
{
	struct link *link = attach_take_link(false);

	if (!link || arena_size < sizeof(struct gz_arena))
		return NULL;
	/* Where they will be: sockets are made to point there now. Nothing is looked at before the claim. */
	link->arena = map(-1, arena_size, PROT_READ | PROT_WRITE, NULL);
	link->page = map(-1, sizeof(*link->page), PROT_READ, NULL);
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

	err = attach_send(link->control_fd, &message, -1);
	if (!err)
		err = await(link, link->control_fd, GZ_MESSAGE_WELCOME, &message, fds, &count, ANSWER_PATIENCE_MS);
	if (err)
		return err;
	if (count != GZ_WELCOME_FDS)
		err = -EPROTO;
	else
		err = link->unmapped ? map_all(link, &message, fds) : map_channel(link, fds[GZ_WELCOME_CHANNEL]);
	link->unmapped = link->unmapped && err;
	close_fds(fds, count);
	return err;
}

int attach_claim(struct link *link)
{
	uint64_t *dropped;
	int err = 0;

	lock_take(&shim.lock);
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
			sock_claimed(sock, link, n);
	}
out:
	lock_give(&shim.lock);
	return err;
}

void attach_claim_all(void)
{
	WORKER_EACH(link, i)
	{
		if (__builtin_expect(!link->channel, 0))
			(void)attach_claim(link); /* a link that cannot be claimed is dead, which the caller sees */
	}
}

void attach_after_fork(void)
{
	for (uint32_t i = 0; i < GZ_WORKERS_MAX; i++)
		if (pending[i] > 0)
			fd_own_close(&pending[i]);
}
