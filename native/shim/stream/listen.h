/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Listening sockets. The kernel's placeholder arbitrates the port; the stack listens on every worker of the group that
 * takes incoming connections (worker/entries.h). A listener on 0.0.0.0, :: or loopback is served by both: its placeholder is a real
 * kernel listener, and accept merges. Connections accepted before a worker dies live on.
 */
#ifndef SHIM_LISTEN_H
#define SHIM_LISTEN_H

#include <stdbool.h>
#include <stdint.h>

struct entries;
struct sock;

/* listen() on a FRESH or LISTENER socket. 0 or -errno. No locks held. */
int listen_start(struct sock *s, int fd, int backlog);

extern const struct sock_ops listen_ops;

/* shutdown() of a listener: it stops, and a thread that waits in accept is told. Both locks of s held. */
void listen_shutdown(struct sock *s);

/*
 * snapshot.c: becomes s->entries of a listener that another process, or this one before an exec, had; entered for workers that
 * come. Its entries are the caller's to fill in. NULL: no memory.
 */
struct entries *listen_inherit(struct sock *s, int backlog, bool both, bool shut);

#endif
