/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "process/passed_sock.h"
#include "worker/requests.h"
#include "worker/entries.h"
#include "samehost/introduce.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/message.h>

#include "worker/attach.h"
#include "worker/control.h"
#include "udp/dgram_options.h"
#include "worker/program.h"
#include "core/fdtable.h"
#include "process/snapshot.h"
#include "core/attachment.h"
#include "stream/listen.h"
#include "samehost/children.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"

#define LET_GO_TRIES 1000u

/* The one being made or opened, and its descriptors; shim.lock. */
static struct passed_sock packed;
static int fds[PASSED_SOCK_FDS];

union control {
	char buf[CMSG_SPACE(PASSED_SOCK_FDS * sizeof(int))];
	struct cmsghdr align;
};

/* ------------------------------------------------------------------ making one */

static int add_end(struct attachment *a, uint32_t n, const struct program_note *note)
{
	uint32_t at = packed.fds - FIRST_END;
	int end;

	if (packed.fds == PASSED_SOCK_FDS)
		return -ETOOMANYREFS;
	lock_take(&a->post);
	request_settle(a);
	end = program_carry(a, n, note);
	lock_give(&a->post);
	if (end < 0)
		return end == -EUSERS || end == -EMFILE ? -ETOOMANYREFS : -ECONNRESET;
	packed.end[at].slot = a->slot;
	packed.end[at].queue_id = a->queue_id;
	fds[packed.fds++] = end;
	return 0;
}

/* A listener or a datagram socket: at every worker that has it. One that cannot take a child goes without. */
static int add_ends(struct sock *s)
{
	struct program_note note = { .kind = sock_kind(s) };
	int err = -ECONNRESET;

	WORKER_EACH(a, i)
	{
		int got = s->entries->entry[i].attachment == a ? add_end(a, s->entries->entry[i].n, &note) : err;

		if (got == -ETOOMANYREFS)
			return got;
		err = err && got ? got : 0;
	}
	return err;
}

/* No worker has it, but one may vouch for it: any. */
static int add_voucher(struct sock *s)
{
	struct program_note note;
	int err = -ECONNRESET;

	pair_note(s->attachment, s->n, &note);
	note.kind = KIND_STREAM;
	WORKER_EACH(a, i)
	{
		if (err == -ECONNRESET)
			err = add_end(a, 0, &note);
	}
	return err;
}

static int add_pair(struct sock *s)
{
	int err = add_voucher(s);

	if (err)
		return err;
	if (!pair_give(s->attachment, s->n, &packed.pair))
		return -ECONNRESET;
	packed.paired = true;
	if (PAIR_MEMBER_SOCKETS + packed.pair.members > PASSED_SOCK_FDS)
		return -ECONNRESET;
	memset(packed.pair.keep, 0, sizeof(packed.pair.keep));
	packed.pair.keep[s->n % GZ_PAIR_SOCKS / 64] = 1ull << s->n % 64;
	fds[PAIR_MEMORY] = packed.pair.memory_fd;
	for (uint32_t i = 0; i < packed.pair.members; i++)
		fds[PAIR_MEMBER_SOCKETS + i] = packed.pair.socket[i].fd;
	packed.fds = PAIR_MEMBER_SOCKETS + packed.pair.members;
	return 0;
}

/* Into the queue of a new socketpair. Its other end, or -errno. */
static int seal(void)
{
	union control control = { 0 };
	struct iovec iov = { .iov_base = &packed, .iov_len = sizeof(packed) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf };
	int ends[2], err = 0;

	if (REAL(socketpair)(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return -errno;
	gz_fds_put(&msg, fds, packed.fds);
	if (UNCANCELLED(sendmsg, ends[1], &msg, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)sizeof(packed))
		err = -errno;
	UNCANCELLED(close, ends[1]);
	if (err)
		UNCANCELLED(close, ends[0]);
	return err ? err : ends[0];
}

static int pack(int fd, struct sock *s)
{
	const struct program_note note = { .kind = KIND_STREAM };
	int err, made;

	packed = (struct passed_sock){ .magic = PASSED_SOCK_MAGIC, .abi_version = GZ_ABI_VERSION, .fds = FIRST_END };
	snapshot_take(s, &packed.snapshot);
	fds[PLACEHOLDER] = fd;
	if (sock_kind(s) == KIND_STREAM && s->attachment->pair)
		err = add_pair(s);
	else if (sock_kind(s) == KIND_STREAM)
		err = add_end(s->attachment, s->n, &note);
	else
		err = add_ends(s);
	made = err ? err : seal();
	if (packed.paired)
		pair_given(s->attachment);
	for (uint32_t i = FIRST_END; i < (packed.paired ? PAIR_MEMORY : packed.fds); i++)
		UNCANCELLED(close, fds[i]);
	if (made >= 0)
		gz_add(&shim.forks, 1); /* another process may read from it, too */
	return made;
}

int passed_sock_pack(int fd)
{
	struct sock *s;
	int made;

	attachment_claim_all();
	s = sock_enter(fd, true);
	if (!s)
		return -EBADF; /* closed by another thread just now */
	sock_get(s);
	lock_give(&s->tx);
	shim_lock();
	made = pack(fd, s);
	shim_unlock();
	sock_put(s);
	return made;
}

/* ------------------------------------------------------------------ opening one */

/* True if there may be a packed socket in it: it says so in a place where none but us look. */
static bool looks_like_one(int fd)
{
	uint64_t magic = 0;

	return control_is_pair_end(fd) &&
	       UNCANCELLED(recvfrom, fd, &magic, sizeof(magic), MSG_PEEK | MSG_DONTWAIT, NULL, NULL) ==
	               (ssize_t)sizeof(magic) &&
	       magic == PASSED_SOCK_MAGIC;
}

/* Left where it is, for other processes that may receive it. False: it is not as we make them. *count of fds[] are to be closed. */
static bool unseal(int fd, uint32_t *count)
{
	union control control;
	struct iovec iov = { .iov_base = &packed, .iov_len = sizeof(packed) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)
	};
	ssize_t n = UNCANCELLED(recvmsg, fd, &msg, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);

	*count = 0;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		*count = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), *count * sizeof(int));
	}
	return n == (ssize_t)sizeof(packed) && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
	       packed.magic == PASSED_SOCK_MAGIC && packed.abi_version == GZ_ABI_VERSION && packed.fds == *count &&
	       *count > FIRST_END && (!packed.paired || *count == PAIR_MEMBER_SOCKETS + (uint64_t)packed.pair.members);
}

/* The socket that holds number n here already, with a reference: its descriptors are all the same open file. */
static struct sock *holder(struct attachment *a, uint32_t n)
{
	struct sock *s = gz_load(&a->socks[n % GZ_SOCKS_MAX]);

	return s && refs_get_if_any(&s->refs) ? s : NULL;
}

/* A number that was taken over for a socket there is no memory for. */
static void give_up(struct attachment *a, uint32_t n)
{
	attachment_hold(a, n, NULL);
	attachment_let_go(a, n);
}

static struct sock *restored(const struct sock_snapshot *snapshot, struct attachment *a)
{
	struct sock *s = snapshot_restore(snapshot, a);

	if (s)
		sock_get(s);
	else if (a)
		give_up(a, snapshot->n % GZ_SOCKS_MAX);
	gz_add(&shim.forks, 1); /* after that: it has been another's */
	return s;
}

/*
 * Shows end `i` to the worker it is of, and with that takes over the number it holds; or finds the socket here that has it already. 0 or
 * -errno: among others, the sender never had the socket.
 */
static int open_end(uint32_t i, struct program_note *note, struct attachment **a, uint32_t *n, struct sock **s)
{
	uint32_t slot = packed.end[i].slot;
	bool held = true;

	*a = slot < shim.workers ? gz_load(&shim.attachments[slot]) : NULL;
	if (!*a || (*a)->queue_id != packed.end[i].queue_id)
		return -EPERM;
	/* Held, and nobody has it: it is being let go of just now, by another thread. The worker is asked again when it was. */
	for (uint32_t tries = 0; held && !*s && tries < LET_GO_TRIES; tries++) {
		int err = program_adopt(*a, fds[FIRST_END + i], note, n, &held);

		if (err)
			return err;
		if (note->kind != packed.snapshot.kind || note->paired != packed.paired || (*n == 0) != note->paired)
			return -EPROTO;
		if (*n)
			*s = holder(*a, *n);
		held = held && *n;
		if (held && !*s)
			sched_yield();
	}
	return 0;
}

static int open_paired(struct sock **s, bool *taken)
{
	struct pair_snapshot *snapshot = &packed.pair;
	struct program_note note;
	struct attachment *a;
	struct stat st;
	uint32_t n;
	int err = open_end(0, &note, &a, &n, s);

	if (err)
		return err;
	if (fstat(fds[PAIR_MEMORY], &st) || st.st_dev != note.dev || st.st_ino != note.ino || snapshot->side != note.side ||
	    snapshot->members > GZ_PAIR_MEMBERS || note.kind != KIND_STREAM || !note.n || note.n >= GZ_PAIR_SOCKS)
		return -EPROTO;
	snapshot->uid = note.uid;
	snapshot->netns = note.netns;
	snapshot->memory_fd = fds[PAIR_MEMORY];
	for (uint32_t i = 0; i < snapshot->members; i++) {
		snapshot->socket[i].fd = fds[PAIR_MEMBER_SOCKETS + i];
		if (!control_is_pair_end(snapshot->socket[i].fd))
			return -EPROTO;
	}
	memset(snapshot->keep, 0, sizeof(snapshot->keep));
	snapshot->keep[note.n / 64] = 1ull << note.n % 64;
	packed.snapshot.n = note.n;
	a = introduce_passed(snapshot, note.n, taken);
	if (!a)
		return -EPERM;
	*s = holder(a, note.n);
	if (!*s)
		*s = restored(&packed.snapshot, a);
	return *s ? 0 : -ENOMEM;
}

static int open_stream(struct sock **s)
{
	struct program_note note;
	struct attachment *a;
	int err = packed.fds == FIRST_END + 1 ? open_end(0, &note, &a, &packed.snapshot.n, s) : -EPROTO;

	if (err || *s)
		return err;
	*s = restored(&packed.snapshot, a);
	return *s ? 0 : -ENOMEM;
}

static int open_entries(struct sock **s)
{
	int err = -EPERM;

	if (packed.snapshot.kind != KIND_LISTENER && packed.snapshot.kind != KIND_DGRAM)
		return -EPROTO;
	memset(packed.snapshot.entry, 0, sizeof(packed.snapshot.entry));
	for (uint32_t i = 0; i < packed.fds - FIRST_END && i < GZ_WORKERS_MAX && !*s; i++) {
		struct program_note note;
		struct attachment *a;
		uint32_t n;
		int got = open_end(i, &note, &a, &n, s);

		if (!got && !*s)
			packed.snapshot.entry[a->slot] = n;
		err = err && got ? got : 0;
	}
	if (err || *s)
		return err;
	*s = restored(&packed.snapshot, NULL);
	return *s ? 0 : -ENOMEM;
}

static int unpack(int fd, struct sock **s)
{
	uint32_t count;
	bool taken = false;
	int err, flags = REAL(fcntl)(fd, F_GETFD);

	if (!unseal(fd, &count))
		err = -EPROTO;
	else if (packed.paired)
		err = open_paired(s, &taken);
	else
		err = packed.snapshot.kind == KIND_STREAM ? open_stream(s) : open_entries(s);
	if (!err && REAL(dup3)(fds[PLACEHOLDER], fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
		err = -errno;
	for (uint32_t i = 0; i < count; i++)
		if (!taken || i < PAIR_MEMORY)
			UNCANCELLED(close, fds[i]);
	return err;
}

int passed_sock_unpack(int fd)
{
	struct sock *s = NULL;
	int err;

	if (!looks_like_one(fd))
		return 0;
	if (!shim_active())
		return -EPERM;
	attachment_claim_all();
	fd_forget(fd); /* what was here may have been closed behind our back */
	shim_lock();
	err = unpack(fd, &s);
	shim_unlock();
	if (err) {
		if (s)
			sock_put(s);
		return err;
	}
	if (sock_kind(s) == KIND_DGRAM)
		dgram_options_load(s, fd);
	fd_put(fd, (uintptr_t)s);
	return 0;
}
