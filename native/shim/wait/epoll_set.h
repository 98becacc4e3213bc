/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Which sockets are in which epoll set, from epoll_create() to the last close(). */
#ifndef SHIM_EPOLL_SET_H
#define SHIM_EPOLL_SET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "core/fdtable.h"

struct attachment;
struct epoll;
struct sock;

/* A new real epoll descriptor that may get accelerated sockets. Failure to remember it leaves a kernel one. */
void epoll_opened(int fd);

/* The set of a descriptor with a reference, or NULL if it is none (any more). */
struct epoll *epoll_take(int fd);

/* One more descriptor or user of the set; one less. No locks held. */
void epoll_get(struct epoll *ep);
void epoll_put(struct epoll *ep);
extern const struct fd_ops epoll_fd_ops;

/* epoll_ctl of set `epfd` on descriptor `fd`. 0 or -errno. */
int epoll_change(struct epoll *ep, int epfd, int op, int fd, struct epoll_event *event);

/* Socket s has become a stream or listener of the stack: its items leave the real sets, unless the kernel serves it, too. */
void epoll_became(struct sock *s, bool both);

/* Its items are to be looked at (a change no bell announces). shim.lock may be held. */
void epoll_activate(struct sock *s);

/* Number n of an attachment now also stands for s: sets that have s want to hear of it. */
void epoll_claim(struct sock *s, struct attachment *a, uint32_t n);

/* And no longer does. */
void epoll_unclaim(struct sock *s, struct attachment *a, uint32_t n);

/*
 * The last descriptor of s is about to be closed: it leaves the real sets. By itself the kernel would take it out only when nobody
 * has the file open any more, and the workers have that of a listener for a moment longer.
 */
void epoll_closing(struct sock *s);

/* s is closed, or the kernel's: its items go. */
void epoll_forget(struct sock *s);

/* fork.c: all sets' locks, before and after; in the child which event queues are in use. */
void epoll_before_fork(void);
void epoll_after_fork(void);
uint64_t epoll_queues(void);

#endif
