/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Sets in sets. The kernel knows the nesting, too: it refuses loops and reports what its own descriptors do in an inner set.
 * An item beside it stands for the stack's sockets in there: when something changes in the inner set, the item does in the
 * outer one, at any depth. Locks go from the outer set to the inner one; fork.c wants them in any order, hence shim.items
 * around them all.
 */
#ifndef SHIM_EPOLL_NEST_H
#define SHIM_EPOLL_NEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct epoll;
struct item;

/* Queues one sleep can be woken by; in deeper or wider nests it is short instead. */
#define NEST_QUEUES 16u

/* epoll_ctl of set `ep` on the set `inner`, whose descriptor is `fd`. 0 or -errno. No locks held. */
int nest_change(struct epoll *ep, int epfd, int op, int fd, struct epoll *inner, struct epoll_event *event);

/* What changed in inner sets changes their items in this one. Entered (epoll_set_enter). */
void nest_take_changes(struct epoll *ep);

/* True if nest_take_changes would find something. Entered. */
bool nest_pending(struct epoll *ep);

/* True if the inner set has ready stack sockets, and whether it may have told before. Entered. */
bool nest_ready(struct item *item);

/* The set's event queue and those of the sets in it. Returns how many there are, which may be more than `room`. Entered. */
uint32_t nest_queues(struct epoll *ep, uint32_t *queues, uint32_t room);

/* The last descriptor of the set is gone: it leaves all others. shim.items held. */
void nest_leave(struct epoll *inner);

#endif
