/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A program of this host that is not attached and has no special rights sends sockets of its own making (struct passed_sock) to a
 * program that takes descriptors: with every number that program may have a socket under, and with memory that it pulls away.
 *
 *   forged_socket NAME    of an abstract UNIX socket
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/message.h>

#include "process/passed_sock.h"
#include "core/sock.h"

#define NUMBERS 32u
#define WORKERS 2u
#define NOBODY 65534

static struct passed_sock packed;

static int put(int to, const void *data, size_t len, const int *fds, uint32_t count)
{
	_Alignas(struct cmsghdr) char room[CMSG_SPACE(8 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)data, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room };

	gz_fds_put(&msg, fds, count);
	return sendmsg(to, &msg, MSG_NOSIGNAL) == (ssize_t)len ? 0 : -1;
}

/* Sends it, and waits until the program has had it. */
static int deliver(const char *name, int *fds)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int ends[2], way = socket(AF_UNIX, SOCK_STREAM, 0), sent;
	char byte;

	snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, "%s", name);
	packed.magic = PASSED_SOCK_MAGIC;
	packed.abi_version = GZ_ABI_VERSION;
	if (connect(way, (struct sockaddr *)&addr, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends))
		return -1;
	sent = put(ends[1], &packed, sizeof(packed), fds, packed.fds) || put(way, "f", 1, ends, 1) ||
	       read(way, &byte, 1) != 1;
	close(ends[0]);
	close(ends[1]);
	close(way);
	return sent ? -1 : 0;
}

static int with_numbers(const char *name)
{
	static const enum sock_kind kinds[] = { KIND_LISTENER, KIND_STREAM, KIND_DGRAM };
	int fds[2] = { socket(AF_INET, SOCK_STREAM, 0), open("/dev/null", O_RDONLY) };

	for (uint32_t i = 0; i < 3 * WORKERS * NUMBERS; i++) {
		packed = (struct passed_sock){ .fds = 2 };
		packed.end[0].slot = packed.end[0].queue_id = i / NUMBERS % WORKERS;
		packed.snapshot.kind = kinds[i / NUMBERS / WORKERS];
		packed.snapshot.family = AF_INET;
		packed.snapshot.n = packed.snapshot.entry[0] = packed.snapshot.entry[1] = i % NUMBERS;
		if (deliver(name, fds))
			return -1;
	}
	return 0;
}

static int with_memory(const char *name)
{
	int fds[4] = { socket(AF_INET, SOCK_STREAM, 0), open("/dev/null", O_RDONLY), memfd_create("gazelle-pair", 0) },
	    sockets[2];
	struct gz_pair *pair;

	if (ftruncate(fds[PAIR_MEMORY], (off_t)GZ_PAIR_SIZE) || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets))
		return -1;
	pair = mmap(NULL, sizeof(*pair), PROT_READ | PROT_WRITE, MAP_SHARED, fds[PAIR_MEMORY], 0);
	pair->magic = GZ_PAIR_MAGIC;
	pair->abi_version = GZ_ABI_VERSION;
	pair->socks = GZ_PAIR_SOCKS;
	pair->side[0].member[0] = pair->side[1].member[0] = GZ_MEMBER(1, GZ_MEMBER_ALIVE);
	pair->side[0].processes = pair->side[1].processes = 1;
	pair->sock[1].end[0].flags = pair->sock[1].end[1].flags = GZ_WORKER_OPEN | GZ_WORKER_CONNECTED;
	fds[PAIR_MEMBER_SOCKETS] = sockets[0];
	packed = (struct passed_sock){ .fds = 4, .paired = 1, .snapshot = { .kind = KIND_STREAM, .family = AF_INET, .n = 1 } };
	packed.pair.members = packed.pair.socket[0].life = 1;
	return deliver(name, fds) || ftruncate(fds[PAIR_MEMORY], 0) ? -1 : 0;
}

int main(int argc, char **argv)
{
	if (argc != 2 || setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY)) {
		perror("forged_socket NAME");
		return 2;
	}
	if (with_numbers(argv[1]) || with_memory(argv[1])) {
		perror("forged_socket");
		return 1;
	}
	puts("all sent");
	return 0;
}
