/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What is left of an arena whose processes have all ended: the bytes its orphans have still to send. All other pages go
 * back to the system at once, also those that were never given out, and with the last orphan the rest; some in each turn,
 * because a program may leave gigabytes.
 */
#ifndef LSTACK_REMAINS_H
#define LSTACK_REMAINS_H

#include <stdbool.h>

struct apps;
struct arena;

/* Its last process has left it. `gone`: ended, so that nobody will look at the pages any more. */
void remains_begin(struct arena *arena, bool gone);

/* The last reference is gone: frees it, in this turn or later ones. */
void remains_end(struct arena *arena);

/* Some more. True: there is still something to do. */
bool remains_work(struct apps *apps);

#endif
