/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What a worker says over the control socket. */
#ifndef SHIM_ANSWER_H
#define SHIM_ANSWER_H

#include <stdint.h>

#include <gazelle/control.h>

struct attachment;

/*
 * Waits at most that long for a message of this kind. What else the worker says meanwhile is given to answer_unasked(), or dropped
 * if `a` is NULL. 0 or -errno (what a worker that refuses gives as its reason); on 0 the caller closes the fds.
 */
int answer_await(struct attachment *a, int control_fd, uint32_t kind, struct gz_message *message, int *fds, int *count,
                 int patience_ms);

/* What a worker says unasked: it introduces a program of this host. Takes the descriptors. shim.lock held. parts.c */
extern void (*const answer_unasked)(struct attachment *a, const struct gz_message *message, int *fds, int count);

#endif
