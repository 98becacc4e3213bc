/* SPDX-License-Identifier: MulanPSL-2.0 */
/* connect(): a FRESH socket becomes a STREAM of a send worker, or the kernel's. */
#ifndef SHIM_CONNECT_H
#define SHIM_CONNECT_H

#include <sys/socket.h>

struct sock;

/*
 * connect() on any socket of ours; no locks, but a reference held. 0 or -errno as the kernel answers (EINPROGRESS, EALREADY, EISCONN...).
 * 1: the kernel serves this descriptor from now on, ask it. 2: ask it, for it knows what is wrong; nothing has changed.
 */
int connect_start(struct sock *s, int fd, const struct sockaddr *sa, socklen_t len);

#endif
