/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Counts the pages of arenas. A process can touch what it was never given: who does is detached. And a user has all his
 * programs have touched: beyond his share he gets no further block, and far beyond it the largest of his programs goes.
 */
#ifndef LSTACK_AUDIT_H
#define LSTACK_AUDIT_H

struct apps;

/* Looks at some arenas, in turns. Now and then. */
void audit_some(struct apps *apps);

#endif
