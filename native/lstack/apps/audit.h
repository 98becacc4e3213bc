/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Counts the pages of arenas. A process can touch memory that it was never given; a process that does is detached. A user is
 * charged for all that the user's programs have touched: beyond the share they get no further block, far beyond it the largest
 * of them is detached.
 */
#ifndef LSTACK_AUDIT_H
#define LSTACK_AUDIT_H

struct apps;

/* Looks at some arenas, in turns. Now and then. */
void audit_some(struct apps *apps);

#endif
