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

struct epoll;

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

#endif
