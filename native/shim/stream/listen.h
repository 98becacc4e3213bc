/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Listening sockets. The kernel's placeholder arbitrates the port; the stack listens on every worker of the group that
 * takes incoming connections, so that it does not matter which one a SYN reaches. A listener on 0.0.0.0, :: or loopback is
 * served by both: its placeholder is a real kernel listener, and accept merges.
 *
 * When a worker dies its entry goes; when it comes back attach.c has it made again. Connections accepted before live on.
 */
#ifndef SHIM_LISTEN_H
#define SHIM_LISTEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <gazelle/arena.h>
#include <gazelle/group_page.h>

#include "worker/attachment.h"

struct item;
struct sock;

/* The listener at one worker. */
struct listen_entry {
	struct attachment *attachment; /* NULL: no worker there, or it takes no incoming connections */
	uint32_t n;
	struct gz_accept_queue *queue; /* NULL until the worker has opened it */
	uint32_t mask;
};

struct listener {
	struct sock *next; /* shim.listeners; shim.lock */
	bool both;         /* the kernel serves it, too */
	bool v6only;       /* on ::, not for IPv4 */
	bool shut;         /* shutdown() was called: accept fails */
	uint64_t netns;    /* cookie of its network namespace; 0: not asked for yet */
	int backlog;
	uint32_t turn, pair_turn;                  /* where the next accept begins, among workers and among pairs */
	struct listen_entry entry[GZ_WORKERS_MAX]; /* by index in the group; shim.lock to change */
};

/* The cookie of the listener's network namespace. */
uint64_t listen_netns(struct sock *s);

/* listen() on a FRESH or LISTENER socket. 0 or -errno. No locks held. */
int listen_start(struct sock *s, int fd, int backlog);

/*
 * accept4() on a listener; s->rx is held and given back. A descriptor, or -errno; `addr` as accept() has it.
 */
int listen_accept(struct sock *s, int fd, struct sockaddr *addr, socklen_t *len, int flags);

/* True if a connection of the stack waits. Any thread, no locks. */
bool listen_ready(struct sock *s);

extern const struct sock_ops listen_ops;

/* This event queue wants to hear of connections, or no longer. */
void listen_interest(struct sock *s, uint32_t queue, bool on);

/* shutdown() of a listener: it stops, and who waits in accept is told. Both locks of s held. */
void listen_shutdown(struct sock *s);

/*
 * exec.c: a listener of the image before this one, entered for workers that come; its entries are the caller's to fill in.
 * NULL: no memory.
 */
struct listener *listen_inherit(struct sock *s, int backlog, bool both, bool shut);

/* attach.c, shim.lock held: a worker died; a worker is there (again). */
void listen_lost(struct attachment *a);
void listen_restore(struct attachment *a);

#endif
