/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Members of our side that this process makes: a child of a fork, the program after an exec, the receiver of a passed socket. */
#ifndef SHIM_SAMEHOST_CHILDREN_H
#define SHIM_SAMEHOST_CHILDREN_H

#include "samehost/snapshot.h"

struct program_note;

/* fork.c: the child is made a member of every pair; called in the parent before, in both after. */
void pair_before_fork(void);
void pair_after_fork_in_parent(void);
void pair_after_fork_in_child(uint64_t queues);

/* After pair_before_fork: false if the other side could not be told of a child. shim.lock held. */
bool pair_leave(struct attachment *a, struct pair_snapshot *snapshot);

/*
 * passed_sock.c: introduces the process that gets the snapshot, which holds number n alone, as a child. True: a->post is held until
 * pair_given(), by which the snapshot must be on its way. False: no member is free, or the other side has none any more. shim.lock held.
 */
bool pair_give(struct attachment *a, uint32_t n, struct pair_snapshot *snapshot);
void pair_given(struct attachment *a);

/* True for the side of a pair that listens. */
bool pair_accepts(const struct attachment *a);

/* What a sender says of number n (worker/program.h): also which memory it is, of which no two that exist are the same. */
void pair_note(const struct attachment *a, uint32_t n, struct program_note *note);

#endif
