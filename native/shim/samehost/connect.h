/* SPDX-License-Identifier: MulanPSL-2.0 */
/* connect() to a program of this host. */
#ifndef SHIM_SAMEHOST_CONNECT_H
#define SHIM_SAMEHOST_CONNECT_H

#include <stdbool.h>
#include <stdint.h>

struct attachment;
struct endpoint;
struct sock;

/* The socket that wants to connect: its kernel socket, and which network namespace's loopback it means. */
struct pair_caller {
	int fd;
	uint64_t netns;
};

/*
 * connect() to an address of this host. 0: s is on number *n of *attachment, connected or about to be. 1: no attached program
 * listens there, or it cannot be reached this way. -errno: it listens, but this is not to be. Both locks of s held.
 * `local`: where s is bound now. s->name is set.
 */
int pair_connect(const struct pair_caller *from, const struct endpoint *local, const struct endpoint *to,
                 struct sock *s, struct attachment **a, uint32_t *n);

/*
 * True if pair_connect() to there will find a program and a free number. Asked before the socket takes an address of the
 * stack's: bound to one, the kernel could not connect it any more. No locks of shim held.
 */
bool pair_reaches(const struct pair_caller *from, const struct endpoint *to);

#endif
