/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Control sockets: how attachments come to be, how a peer's death is noticed, how they are attached again. Nothing here is on the data
 * path. attach_check and attach_retry are part of every sleep (wait.c); there is no helper thread.
 */
#ifndef SHIM_ATTACH_H
#define SHIM_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/control.h>

struct attachment;

/*
 * Waits at most that long for a message of this kind. With an attachment, what else the worker says meanwhile is attended to, without
 * one it is dropped. 0 or -errno (what a worker that refuses gives as its reason); on 0 the caller closes the fds.
 */
int attach_await(struct attachment *a, int control_fd, uint32_t kind, struct gz_message *message, int *fds, int *count,
                 int patience_ms);

/* What a worker says unasked; takes the descriptors. shim.lock held. */
void attach_said(struct attachment *a, const struct gz_message *message, int *fds, int count);

/* An attachment to fill in (NULL: no memory), and its beginning. shim.lock held. */
struct attachment *attachment_take(bool pair);
void attachment_publish(struct attachment *a);

/* The worker is woken by messages over control_fd from now on; with none to be had it hears of us at its next beat. */
void attach_wake_by_control(struct attachment *a);

/* Attaches to every worker of the group that is not. shim.lock held. Returns how many attachments live. */
uint32_t attach_all(void);

/* Looks at all control sockets without waiting; a peer that hung up is freed and its sockets wake. No locks held. */
void attach_check(void);

/* If workers are missing and it is time, tries to attach again, and re-opens this process's listeners there. No locks held. */
void attach_retry(void);

/* The same at once, waiting at most that long for workers that are just starting: a call needs one now. No locks of attachments held. */
void attach_wait(int patience_ms);

/*
 * The kernel says EADDRINUSE: it may be a port of a process that has ended, and whose workers have not seen that yet. Has them
 * look. False: none is there. shim.lock and attachments' locks not held.
 */
bool attach_free_ports(void);

/* Waits a moment until every worker has carried out what was posted. */
void attach_await_all(void);

/* A peer is gone: lets go of it. shim.lock held. */
void attachment_lost(struct attachment *a);

/* fork.c, in the child: handshakes of the parent in progress are not ours. shim.lock held. */
void attach_after_fork(void);

#endif
