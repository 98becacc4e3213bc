/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * epoll sets. The program's epoll descriptor stays a real one, with the program's kernel descriptors in it and nothing of
 * ours; accelerated sockets are in the set by user-space items only. Bells say which items to look at; what is ready is
 * always recomputed from levels, and edge-triggered, one-shot and exclusive are derived from them.
 *
 * A FRESH socket is in the real set and has an item beside it, so that it can move when its path is decided.
 */
#ifndef SHIM_EPOLL_H
#define SHIM_EPOLL_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "core/attachment.h"

struct epoll;
struct sock;

/* A new real epoll descriptor that may get accelerated sockets. Failure to remember it leaves a kernel one. */
void epoll_opened(int fd);

static inline struct epoll *epoll_of_word(uintptr_t word)
{
	return (struct epoll *)(word & ~(uintptr_t)3);
}

/* The set of a descriptor with a reference, or NULL if it is none (any more). */
struct epoll *epoll_take(int fd);

/* One more descriptor or user of the set; one less. No locks held. */
void epoll_get(struct epoll *ep);
void epoll_put(struct epoll *ep);
extern const struct fd_ops epoll_fd_ops;

/* epoll_ctl of set `epfd` on descriptor `fd`. 0 or -errno. */
int epoll_change(struct epoll *ep, int epfd, int op, int fd, struct epoll_event *event);

/* epoll_wait and its kin. timeout_ns < 0: for ever. Number of events, or -errno. */
int epoll_wait_for(struct epoll *ep, int epfd, struct epoll_event *events, int most, int64_t timeout_ns,
                   const sigset_t *sigmask);

/* True if the set has ready stack sockets, for poll() and sets of sets. No locks held. */
bool epoll_ready(struct epoll *ep);

/* True if it has stack sockets, or sets that may; else only what another thread adds makes it more than the kernel's. */
bool epoll_has_items(struct epoll *ep);

/*
 * The event queues that ring for it and for the sets in it, to sleep on them from elsewhere. Returns how many there are,
 * which may be more than `room`.
 */
uint32_t epoll_queues_of(struct epoll *ep, uint32_t *queues, uint32_t room);

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
