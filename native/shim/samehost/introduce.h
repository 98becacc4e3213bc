/* SPDX-License-Identifier: MulanPSL-2.0 */
/* How a pair comes to be: a worker introduces two programs, or a process takes over what another one had. */
#ifndef SHIM_SAMEHOST_INTRODUCE_H
#define SHIM_SAMEHOST_INTRODUCE_H

#include <gazelle/control.h>

#include "samehost/snapshot.h"

/* A worker introduces a program, or a member of one, over its control socket. Takes the descriptors. shim.lock held. */
void introduce(struct attachment *worker, const struct gz_message *message, int *fds, int count);

/* After an exec, before main: the attachment, NULL if it cannot be had. Takes the descriptors. */
struct attachment *introduce_inherited(const struct pair_snapshot *snapshot);

/*
 * passed_sock.c, in the process that got the snapshot: it holds number n, too. Returns the attachment this process has to those
 * programs already, or a new one by this snapshot, whose descriptors it takes then: *taken. NULL: it cannot be had. shim.lock held.
 */
struct attachment *introduce_passed(const struct pair_snapshot *snapshot, uint32_t n, bool *taken);

/* True if this process may connect by the pair: numbers are given out by one process only. */
bool introduce_is_ours(const struct attachment *a);

#endif
