/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "process/parcel.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/attach.h"
#include "worker/control.h"
#include "udp/dgram_options.h"
#include "worker/program.h"
#include "core/fdtable.h"
#include "process/image.h"
#include "worker/link.h"
#include "stream/listen.h"
#include "samehost/pair.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"

#define LET_GO_TRIES 1000u

/* The one being made or opened, and its descriptors; shim.lock. */
static struct parcel parcel;
static int fds[PARCEL_FDS];

union control {
	char buf[CMSG_SPACE(PARCEL_FDS * sizeof(int))];
	struct cmsghdr align;
};

/* ------------------------------------------------------------------ making one */

static int add_end(struct link *link, uint32_t n, const struct program_note *note)
{
	uint32_t at = parcel.fds - FIRST_END;
	int end;

	if (parcel.fds == PARCEL_FDS)
		return -ETOOMANYREFS;
	lock_take(&link->post);
	link_settle(link);
	end = program_carry(link, n, note);
	lock_give(&link->post);
	if (end < 0)
		return end == -EUSERS || end == -EMFILE ? -ETOOMANYREFS : -ECONNRESET;
	parcel.end[at].slot = link->slot;
	parcel.end[at].queue_id = link->queue_id;
	fds[parcel.fds++] = end;
	return 0;
}

/* A listener or a datagram socket: at every worker that has it. One that cannot take a child goes without. */
static int add_ends(struct sock *s)
{
	struct program_note note = { .kind = sock_kind(s) };
	int err = -ECONNRESET;

	WORKER_EACH(link, i)
	{
		int got = s->listener->entry[i].link == link ? add_end(link, s->listener->entry[i].n, &note) : err;

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

	pair_note(s->link, s->n, &note);
	note.kind = KIND_STREAM;
	WORKER_EACH(link, i)
	{
		if (err == -ECONNRESET)
			err = add_end(link, 0, &note);
	}
	return err;
}

static int add_pair(struct sock *s)
{
	int err = add_voucher(s);

	if (err)
		return err;
	if (!pair_give(s->link, s->n, &parcel.pair))
		return -ECONNRESET;
	parcel.paired = true;
	if (PAIR_LEGS + parcel.pair.legs > PARCEL_FDS)
		return -ECONNRESET;
	memset(parcel.pair.keep, 0, sizeof(parcel.pair.keep));
	parcel.pair.keep[s->n % GZ_PAIR_SOCKS / 64] = 1ull << s->n % 64;
	fds[PAIR_MEMORY] = parcel.pair.memory_fd;
	for (uint32_t i = 0; i < parcel.pair.legs; i++)
		fds[PAIR_LEGS + i] = parcel.pair.leg[i].fd;
	parcel.fds = PAIR_LEGS + parcel.pair.legs;
	return 0;
}

/* Into the queue of a new socketpair. Its other end, or -errno. */
static int seal(void)
{
	union control control = { 0 };
	struct iovec iov = { .iov_base = &parcel, .iov_len = sizeof(parcel) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf };
	int ends[2], err = 0;

	if (REAL(socketpair)(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return -errno;
	control_put_fds(&msg, fds, parcel.fds);
	if (UNCANCELLED(sendmsg, ends[1], &msg, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)sizeof(parcel))
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

	parcel = (struct parcel){ .magic = PARCEL_MAGIC, .abi_version = GZ_ABI_VERSION, .fds = FIRST_END };
	image_of(s, &parcel.image);
	fds[PLACEHOLDER] = fd;
	if (sock_kind(s) == KIND_STREAM && s->link->pair)
		err = add_pair(s);
	else if (sock_kind(s) == KIND_STREAM)
		err = add_end(s->link, s->n, &note);
	else
		err = add_ends(s);
	made = err ? err : seal();
	if (parcel.paired)
		pair_given(s->link);
	for (uint32_t i = FIRST_END; i < (parcel.paired ? PAIR_MEMORY : parcel.fds); i++)
		UNCANCELLED(close, fds[i]);
	if (made >= 0)
		gz_add(&shim.forks, 1); /* another process may read from it, too */
	return made;
}

int parcel_make(int fd)
{
	struct sock *s;
	int made;

	program_claim_all();
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

/* True if there may be a parcel in it: it says so in a place where none but us look. */
static bool looks_like_one(int fd)
{
	uint64_t magic = 0;

	return control_is_pair_end(fd) &&
	       UNCANCELLED(recvfrom, fd, &magic, sizeof(magic), MSG_PEEK | MSG_DONTWAIT, NULL, NULL) ==
	               (ssize_t)sizeof(magic) &&
	       magic == PARCEL_MAGIC;
}

/* Left where it is, for whoever else may receive it. False: it is not as we make them. *count of fds[] are to be closed. */
static bool unseal(int fd, uint32_t *count)
{
	union control control;
	struct iovec iov = { .iov_base = &parcel, .iov_len = sizeof(parcel) };
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
	return n == (ssize_t)sizeof(parcel) && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
	       parcel.magic == PARCEL_MAGIC && parcel.abi_version == GZ_ABI_VERSION && parcel.fds == *count &&
	       *count > FIRST_END && (!parcel.paired || *count == PAIR_LEGS + (uint64_t)parcel.pair.legs);
}

/* The socket that holds number n here already, with a reference: its descriptors are all the same open file. */
static struct sock *holder(struct link *link, uint32_t n)
{
	struct sock *s = gz_load(&link->socks[n % GZ_SOCKS_MAX]);
	uint32_t refs = s ? gz_load(&s->refs) : 0;

	while (refs && !gz_cas(&s->refs, &refs, refs + 1))
		;
	return refs ? s : NULL;
}

/* A number that was taken over for a socket there is no memory for. */
static void give_up(struct link *link, uint32_t n)
{
	link_hold(link, n, NULL);
	link_let_go(link, n);
}

static struct sock *restored(const struct image_sock *image, struct link *link)
{
	struct sock *s = image_restore(image, link);

	if (s)
		sock_get(s);
	else if (link)
		give_up(link, image->n % GZ_SOCKS_MAX);
	gz_add(&shim.forks, 1); /* after that: it has been another's */
	return s;
}

/*
 * Shows end `i` to the worker it is of, and with that takes over the number it holds; or finds who has it here already. 0 or
 * -errno: among others, who sent this never had the socket.
 */
static int open_end(uint32_t i, struct program_note *note, struct link **link, uint32_t *n, struct sock **s)
{
	uint32_t slot = parcel.end[i].slot;
	bool held = true;

	*link = slot < shim.workers ? gz_load(&shim.links[slot]) : NULL;
	if (!*link || (*link)->queue_id != parcel.end[i].queue_id)
		return -EPERM;
	/* Held, and nobody has it: it is being let go of just now, by another thread. The worker is asked again when it was. */
	for (uint32_t tries = 0; held && !*s && tries < LET_GO_TRIES; tries++) {
		int err = program_adopt(*link, fds[FIRST_END + i], note, n, &held);

		if (err)
			return err;
		if (note->kind != parcel.image.kind || note->paired != parcel.paired || (*n == 0) != note->paired)
			return -EPROTO;
		if (*n)
			*s = holder(*link, *n);
		held = held && *n;
		if (held && !*s)
			sched_yield();
	}
	return 0;
}

static int open_paired(struct sock **s, bool *taken)
{
	struct pair_image *image = &parcel.pair;
	struct program_note note;
	struct link *link;
	struct stat st;
	uint32_t n;
	int err = open_end(0, &note, &link, &n, s);

	if (err)
		return err;
	if (fstat(fds[PAIR_MEMORY], &st) || st.st_dev != note.dev || st.st_ino != note.ino || image->side != note.side ||
	    image->legs > GZ_PAIR_MEMBERS || note.kind != KIND_STREAM || !note.n || note.n >= GZ_PAIR_SOCKS)
		return -EPROTO;
	image->uid = note.uid;
	image->netns = note.netns;
	image->memory_fd = fds[PAIR_MEMORY];
	for (uint32_t i = 0; i < image->legs; i++) {
		image->leg[i].fd = fds[PAIR_LEGS + i];
		if (!control_is_pair_end(image->leg[i].fd))
			return -EPROTO;
	}
	memset(image->keep, 0, sizeof(image->keep));
	image->keep[note.n / 64] = 1ull << note.n % 64;
	parcel.image.n = note.n;
	link = pair_take(image, note.n, taken);
	if (!link)
		return -EPERM;
	*s = holder(link, note.n);
	if (!*s)
		*s = restored(&parcel.image, link);
	return *s ? 0 : -ENOMEM;
}

static int open_stream(struct sock **s)
{
	struct program_note note;
	struct link *link;
	int err = parcel.fds == FIRST_END + 1 ? open_end(0, &note, &link, &parcel.image.n, s) : -EPROTO;

	if (err || *s)
		return err;
	*s = restored(&parcel.image, link);
	return *s ? 0 : -ENOMEM;
}

static int open_entries(struct sock **s)
{
	int err = -EPERM;

	if (parcel.image.kind != KIND_LISTENER && parcel.image.kind != KIND_DGRAM)
		return -EPROTO;
	memset(parcel.image.entry, 0, sizeof(parcel.image.entry));
	for (uint32_t i = 0; i < parcel.fds - FIRST_END && i < GZ_WORKERS_MAX && !*s; i++) {
		struct program_note note;
		struct link *link;
		uint32_t n;
		int got = open_end(i, &note, &link, &n, s);

		if (!got && !*s)
			parcel.image.entry[link->slot] = n;
		err = err && got ? got : 0;
	}
	if (err || *s)
		return err;
	*s = restored(&parcel.image, NULL);
	return *s ? 0 : -ENOMEM;
}

static int unpack(int fd, struct sock **s)
{
	uint32_t count;
	bool taken = false;
	int err, flags = REAL(fcntl)(fd, F_GETFD);

	if (!unseal(fd, &count))
		err = -EPROTO;
	else if (parcel.paired)
		err = open_paired(s, &taken);
	else
		err = parcel.image.kind == KIND_STREAM ? open_stream(s) : open_entries(s);
	if (!err && REAL(dup3)(fds[PLACEHOLDER], fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
		err = -errno;
	for (uint32_t i = 0; i < count; i++)
		if (!taken || i < PAIR_MEMORY)
			UNCANCELLED(close, fds[i]);
	return err;
}

int parcel_open(int fd)
{
	struct sock *s = NULL;
	int err;

	if (!looks_like_one(fd))
		return 0;
	if (!shim_active())
		return -EPERM;
	program_claim_all();
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
