/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What the processes of one descent hold together: a child is introduced to the workers by its parent, takes over what it was
 * given when it first needs it, and lets go of what it does not want. Forks, exec and sockets on their way are all children.
 */
#ifndef SHIM_PROGRAM_H
#define SHIM_PROGRAM_H

#include <stdbool.h>
#include <stdint.h>

struct attachment;

/* In a child, on first use: takes over what the parent held at the fork. 0 or -errno; the attachment is dead then. No locks held. */
int program_claim(struct attachment *a);

/* In a child, before the claim: number n is not wanted. No locks held. */
void program_dropped(struct attachment *a, uint32_t n);

/* The same in two steps, for many: told with the second. a->post held, or the attachment is not public yet. */
void program_drop_later(struct attachment *a, uint32_t n);
void program_tell_dropped(struct attachment *a);

/*
 * exec.c, before main: an attachment to a worker that the program before the exec was introduced to; what it holds there is claimed on first use.
 * Takes control_fd. NULL: no memory.
 */
struct attachment *program_inherit(uint32_t slot, uint32_t queue_id, int control_fd, uint64_t arena_size);

/*
 * Introduces a child to the worker, which is to hold all we hold. Returns the child's control socket (close-on-exec), or -errno.
 * shim.lock and a->post held, and all requests settled.
 */
int program_fork(struct attachment *a);

/* What the sender of a socket says of it to its receiver, by way of a worker (passed_sock.c). */
struct program_note {
	uint32_t kind;    /* enum sock_kind */
	uint32_t side, n; /* of a pair: number n of this side, in this memory */
	uint32_t paired;
	uint64_t dev, ino, netns; /* netns, uid: as in struct pair */
	uint32_t uid, pad;
};

/*
 * Number n (0: none of this worker's) goes on its way, with a note. Returns the end (close-on-exec) that holds it, and that only
 * the receiver is to have; or -errno. As program_fork.
 */
int program_carry(struct attachment *a, uint32_t n, const struct program_note *note);

/*
 * Shows the worker an end that came to us. 0: a process of our program has sent it, *note is what that one said, and we hold *n
 * from now on (0: none of this worker's), as we did before if *held. Or -errno. shim.lock held.
 */
int program_adopt(struct attachment *a, int end, struct program_note *note, uint32_t *n, bool *held);

#endif
