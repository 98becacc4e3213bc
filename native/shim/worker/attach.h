/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * How attachments to workers come to be, and come to be again when a worker is back. Nothing here is on the data path.
 * attach_retry is part of every sleep (wait.c); there is no helper thread.
 */
#ifndef SHIM_ATTACH_H
#define SHIM_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

struct attachment;

/* The worker is woken by messages over control_fd from now on; with none to be had it hears of us at its next beat. */
void attach_wake_by_control(struct attachment *a);

/* Attaches to every worker of the group that is not. shim.lock held. Returns how many attachments live. */
uint32_t attach_all(void);

/* If workers are missing and it is time, tries to attach again, and opens this process's sockets there. No locks held. */
void attach_retry(void);

/* The same at once, waiting at most that long for workers that are just starting: a call needs one now. No locks of attachments held. */
void attach_wait(int patience_ms);

/*
 * The kernel says EADDRINUSE: it may be a port of a process that has ended, and whose workers have not seen that yet. Has them
 * look. False: none is there. shim.lock and locks of attachments not held.
 */
bool attach_free_ports(void);

/* fork.c, in the child: handshakes of the parent in progress are not ours. shim.lock held. */
void attach_after_fork(void);

#endif
