/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A peer, or one process of it, has died. */
#ifndef SHIM_LOST_H
#define SHIM_LOST_H

struct attachment;

/* The peer is gone: its sockets are dead from now on, and whatever waits for them wakes. shim.lock held. */
void attachment_lost(struct attachment *a);

/* All sockets of the attachment look at their levels again. shim.lock held. */
void attachment_activate(struct attachment *a);

#endif
