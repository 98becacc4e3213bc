/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What the processes of one descent hold together: a child is introduced to the workers by its parent, takes over what it was
 * given when it first needs it, and lets go of what it does not want. Forks, exec and sockets on their way are all children.
 */
#ifndef SHIM_FAMILY_H
#define SHIM_FAMILY_H

#include <stdint.h>

struct link;

/* In a child, on first use: takes over what the parent held at the fork. 0 or -errno; the link is dead then. No locks held. */
int family_claim(struct link *link);

/* In a child that uses the stack by itself: claims what it holds at each worker, if it has not yet. No locks held. */
void family_claim_all(void);

/* In a child, before the claim: number n is not wanted. No locks held. */
void family_dropped(struct link *link, uint32_t n);

/* The same in two steps, for many: told with the second. link->post held, or the link is not public yet. */
void family_drop_later(struct link *link, uint32_t n);
void family_tell_dropped(struct link *link);

/*
 * exec.c, before main: a link to a worker that the last image was introduced to; what it holds there is claimed on first use.
 * Takes control_fd. NULL: no memory.
 */
struct link *family_inherit(uint32_t slot, uint32_t queue_id, int control_fd, uint64_t arena_size);

/*
 * Introduces a child to the worker, which is to hold socket n alone (0: all we hold). Returns the child's end of its control
 * socket (close-on-exec), or -errno. *attach_id (may be NULL): the child at this worker. shim.lock and link->post held, and all
 * requests settled.
 */
int family_fork(struct link *link, uint32_t n, uint32_t *attach_id);

/* This process holds number n, which that child of our program holds, from now on, too. 0 or -errno. shim.lock held. */
int family_adopt(struct link *link, uint32_t attach_id, uint32_t n);

#endif
