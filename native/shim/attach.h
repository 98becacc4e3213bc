/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Control sockets: how links come to be, how a peer's death is noticed, how they are mended. Nothing here is on the data
 * path. attach_check and attach_mend are part of every sleep (wait.c); there is no helper thread.
 */
#ifndef SHIM_ATTACH_H
#define SHIM_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/attach.h>

struct link;

/*
 * One message if there is one. Returns 1, 0 (none yet) or -errno (EPIPE: the peer is gone). fds: room for GZ_WELCOME_FDS;
 * *count is set, and the descriptors are the caller's.
 */
int attach_receive(int control_fd, struct gz_message *message, int *fds, int *count);

/* What a worker says unasked; takes the descriptors. shim.lock held. */
void attach_said(struct link *link, const struct gz_message *message, int *fds, int count);

/* pair.c, shim.lock held: a link to fill in (NULL: no memory), the memory of a pair for it, and its beginning. */
struct link *attach_take_link(bool pair);
int attach_map_pair(struct link *link, int fd);
void attach_publish(struct link *link);

/* The worker is woken by messages over control_fd from now on; with none to be had it hears of us at its next beat. */
void attach_wake_by_control(struct link *link);

/* Attaches to every worker of the group that is not. shim.lock held. Returns how many links live. */
uint32_t attach_all(void);

/* Looks at all control sockets without waiting; a peer that hung up is buried and its sockets wake. No locks held. */
void attach_check(void);

/* If workers are missing and it is time, tries to attach again, and re-opens this process's listeners there. No locks held. */
void attach_mend(void);

/* The same at once, waiting at most that long for workers that are just starting: a call needs one now. No locks of links held. */
void attach_insist(int patience_ms);

/* Sends a message with one descriptor (-1: none). Never blocks. 0 or -errno. link->post held, or the link is not public yet. */
int attach_send(int control_fd, struct gz_message *message, int fd);

/* In a child, on first use: takes over what the parent held at the fork. 0 or -errno; the link is dead then. No locks held. */
int attach_claim(struct link *link);

/* In a child that uses the stack by itself: claims what it holds at each worker, if it has not yet. No locks held. */
void attach_claim_all(void);

/* In a child, before the claim: number n is not wanted. No locks held. */
void attach_dropped(struct link *link, uint32_t n);

/* The same in two steps, for many: told with the second. link->post held, or the link is not public yet. */
void attach_drop_later(struct link *link, uint32_t n);
void attach_tell_dropped(struct link *link);

/*
 * exec.c, before main: a link to a worker that the last image was introduced to; what it holds there is claimed on first use.
 * Takes control_fd. NULL: no memory.
 */
struct link *attach_inherit(uint32_t slot, uint32_t queue_id, int control_fd, uint64_t arena_size);

/*
 * Introduces a child to the worker, which is to hold socket n alone (0: all we hold). Returns the child's end of its control
 * socket (close-on-exec), or -errno. *attach_id (may be NULL): the child at this worker. shim.lock and link->post held, and all
 * requests settled.
 */
int attach_fork(struct link *link, uint32_t n, uint32_t *attach_id);

/* This process holds number n, which that child of our program holds, from now on, too. 0 or -errno. shim.lock held. */
int attach_adopt(struct link *link, uint32_t attach_id, uint32_t n);

/* A peer is gone: buries it. shim.lock held. */
void attach_lost(struct link *link);

/* fork.c, in the child: handshakes of the parent in progress are not ours. shim.lock held. */
void attach_after_fork(void);

#endif
