/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A socket of the stack on its way to another process. The kernel can carry descriptors (SCM_RIGHTS) but knows only the
 * placeholder under such a socket, so what travels in its place is a packed socket: one end of a UNIX socketpair in whose queue lies
 * all that the receiver needs, the socket's snapshot, the placeholder, and an end (GZ_MESSAGE_CARRY) by which the worker holds
 * the connection on the way, and by which it knows that the sender had it: any program can put such a message together. One that
 * nobody opens is thrown away by the kernel like any descriptor in a queue; the end in it goes, and the worker lets go.
 *
 * Only processes of one program, related by fork, can open each other's packed sockets: they share the memory the socket is in.
 */
#ifndef SHIM_PASSED_SOCK_H
#define SHIM_PASSED_SOCK_H

#include <stdint.h>

#include "process/snapshot.h"
#include "samehost/snapshot.h"

#define PASSED_SOCK_MAGIC 0x6c65637261707a67ull
#define PASSED_SOCK_FDS 253u /* descriptors of one message: the kernel's SCM_MAX_FD */

/* Their places. */
enum { PLACEHOLDER = 0, FIRST_END = 1, PAIR_MEMORY = 2, PAIR_MEMBER_SOCKETS = 3 };

/*
 * What lies in the queue, with `fds` descriptors: the placeholder, then one end for each worker that has the socket; or one end
 * that vouches for a pair, its memory and its member sockets. Nothing in here is believed but what the worker says of the ends.
 */
struct passed_sock {
	uint64_t magic;
	uint32_t abi_version;
	uint32_t fds;
	uint32_t paired;
	struct sock_snapshot snapshot;
	struct {
		uint32_t slot, queue_id;
	} end[GZ_WORKERS_MAX];
	struct pair_snapshot pair;
};

/*
 * A packed socket for the socket that `fd` stands for. Its descriptor, the caller's to close, or -errno: ETOOMANYREFS, a worker has no
 * place for another child; ECONNRESET, its worker is gone. No locks held.
 */
int passed_sock_pack(int fd);

/*
 * A descriptor that was received: if it is a packed socket, it stands for the socket in it from now on, under the same number. 0, also if
 * it is none, or -errno: it is one of another program, or of one that is gone. No locks held.
 */
int passed_sock_unpack(int fd);

#endif
