/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What there is to tell of the items of a set: bells, levels and edges. The set is entered (epoll_set_enter) in all. */
#ifndef SHIM_EPOLL_LOOK_H
#define SHIM_EPOLL_LOOK_H

#include "wait/epoll_types.h"

/* Bells become active items; are there any. */
void epoll_take_bells(struct epoll *ep);
bool epoll_bells_pending(struct epoll *ep);

/* What the program is to hear of this item now, EPOLL* bits; 0 = nothing. `report`: an edge counts as told. */
uint32_t epoll_look(struct item *item, bool report);

/* True if an active item is ready; the others are no longer active. */
bool epoll_any_ready(struct epoll *ep);

/*
 * The item was added or modified, for the stack: it is told if it is ready, in its turn, and otherwise when it will be. Who sleeps in the
 * set looks again, for it may be the first of its peer. shim.items and ep->lock held.
 */
void epoll_begin(struct item *item);

#endif
