/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A peer, or one process of it, has died. */
#ifndef SHIM_LOST_H
#define SHIM_LOST_H

struct attachment;

/* The peer is gone: its sockets are dead from now on, and whatever waits for them wakes. shim.lock held. */
void attachment_lost(struct attachment *a);

/* All sockets of the attachment look at their levels again. shim.lock held. */
void attachment_activate(struct attachment *a);

/* Gives back the memory of dead attachments whose sockets are all gone; the addresses stay. shim.lock held. */
void attachment_free_unused(void);

/* The same as soon as the last socket is gone: another program may have filled that memory. */
void attachment_freed(struct attachment *a);

#endif
