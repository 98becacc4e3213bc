/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Whatever comes as a socket on its way (passed_sock.h), the program that receives it goes on, and keeps what it has. The input
 * says which of its own sockets a genuine packed socket is made of, what is changed in it, which descriptors travel with it, and
 * what the program does with what it got.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gazelle/message.h>

#include "process/passed_sock.h"

#include "input.h"
#include "shim_kit.h"

#define EDITS 24

static int listener, datagram, ends[2];
static struct sockaddr_in at;

static struct {
	struct passed_sock packed;
	int fds[PASSED_SOCK_FDS];
	uint32_t count;
} letter;

static void send_one(int to, int fd)
{
	struct gz_envelope envelope;

	(void)!sendmsg(to, gz_envelope_fill(&envelope, "f", 1, &fd, 1), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* As the program itself would send that socket, and taken out of the way it goes. False: it could not. */
static bool intercept(int fd)
{
	int way[2], packed = -1;
	uint32_t count;
	char byte;

	MUST(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, way));
	send_one(way[1], fd);
	letter.count = 0;
	if (shim_fetch(way[0], &byte, 1, &packed, 1, &count) == 1 && count == 1) {
		(void)shim_fetch(packed, &letter.packed, sizeof(letter.packed), letter.fds, PASSED_SOCK_FDS, &letter.count);
		close(packed);
	}
	close(way[0]);
	close(way[1]);
	return letter.count != 0;
}

/* The parts of it that mean something; the rest is long, and all alike. */
static uint32_t place(struct input *in)
{
	static const struct {
		uint32_t from, bytes;
	} parts[] = {
		{ 0, offsetof(struct passed_sock, snapshot) + 64 },
		{ offsetof(struct passed_sock, snapshot), sizeof(struct sock_snapshot) },
		{ offsetof(struct passed_sock, end), 64 },
		{ offsetof(struct passed_sock, pair), 64 },
	};
	uint8_t which = take8(in) % 5;

	if (which == 4)
		return take16(in) % sizeof(struct passed_sock);
	return parts[which].from + take16(in) % parts[which].bytes;
}

static int some_descriptor(struct input *in)
{
	switch (take8(in) % 6) {
	case 0:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	case 1:
		return memfd_create("fuzz", MFD_CLOEXEC);
	case 2:
		return fcntl(listener, F_DUPFD_CLOEXEC, 0);
	case 3:
		return fcntl(ends[0], F_DUPFD_CLOEXEC, 0);
	case 4:
		return letter.count ? fcntl(letter.fds[take8(in) % letter.count], F_DUPFD_CLOEXEC, 0) : -1;
	default:
		return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	}
}

static void edit(struct input *in)
{
	uint8_t what = take8(in);
	uint32_t where, value;
	int fd;

	switch (what & 7) {
	case 0:
	case 1:
		((uint8_t *)&letter.packed)[place(in)] = take8(in);
		break;
	case 2:
		where = place(in) & ~3u;
		value = take_odd(in);
		if (where + sizeof(value) <= sizeof(letter.packed))
			memcpy((uint8_t *)&letter.packed + where, &value, sizeof(value));
		break;
	case 3: /* another in the place of one */
	case 4: /* one more */
		fd = some_descriptor(in);
		if (fd < 0)
			break;
		where = take8(in) % (letter.count + 1);
		if (where < letter.count && (what & 7) == 3) {
			close(letter.fds[where]);
			letter.fds[where] = fd;
		} else if (letter.count < PASSED_SOCK_FDS - 1) {
			letter.fds[letter.count++] = fd;
			letter.packed.fds += what >> 7;
		} else {
			close(fd);
		}
		break;
	case 5:
		if (letter.count > 1)
			close(letter.fds[--letter.count]);
		letter.packed.fds -= what >> 7;
		break;
	case 6:
		letter.packed.paired = what >> 6;
		letter.packed.snapshot.kind = what >> 3 & 7;
		break;
	default:
		letter.packed.snapshot.n = take_odd(in);
	}
}

/* The letter as a packed socket; what the program gets for it, or -1. */
static int deliver(size_t bytes)
{
	struct gz_envelope envelope;
	int way[2], sealed[2], got = -1;
	char byte;
	struct msghdr *msg = gz_envelope_open(&envelope, &byte, 1);

	MUST(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, way));
	MUST(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sealed));
	shim_post(sealed[1], &letter.packed, bytes, letter.fds, letter.count);
	shim_post(way[1], "f", 1, sealed, 1);
	close(sealed[0]);
	close(sealed[1]);
	if (recvmsg(way[0], msg, MSG_DONTWAIT) == 1)
		(void)gz_fds_take(msg, &got, 1);
	close(way[0]);
	close(way[1]);
	return got;
}

static void open_sockets(void)
{
	listener = shim_listen(&at);
	datagram = shim_bind();
	MUST(shim_pair(listener, &at, ends));
}

/* What the program has is still what it was. */
static void check(void)
{
	int again[2];
	char byte = 0;

	MUST(shim_pair(listener, &at, again));
	MUST(send(again[0], "x", 1, MSG_NOSIGNAL) == 1);
	MUST(recv(again[1], &byte, 1, 0) == 1 && byte == 'x');
	close(again[0]);
	close(again[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	const int own[] = { listener, datagram, ends[0], ends[1] };
	static uint32_t runs;

	for (int letters = 0; letters < 3 && in.left; letters++) {
		uint8_t what = take8(&in), edits = take8(&in) % EDITS;
		int got;

		if (!intercept(own[what & 3]))
			continue;
		while (edits--)
			edit(&in);
		got = deliver(what & 4 ? take16(&in) % (sizeof(letter.packed) + 1) : sizeof(letter.packed));
		for (uint32_t i = 0; i < letter.count; i++)
			close(letter.fds[i]);
		for (int uses = what >> 4; uses-- && got >= 0;)
			shim_use(got, take8(&in) | 1); /* no accepting: others wait for that */
		if (got >= 0)
			close(got);
	}
	/* It may have been a socket of ours, shut down: new ones for the next. */
	if (runs++ % 16 == 0) {
		check();
		close(ends[0]);
		close(ends[1]);
		close(listener);
		close(datagram);
		open_sockets();
	}
	return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	shim_begin((*argv)[0]);
	open_sockets();
	return 0;
}
