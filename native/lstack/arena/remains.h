/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What is left of an arena whose processes have all ended: the bytes its orphans have still to send. All other pages go
 * back to the system at once, also those that were never given out, and with the last orphan the rest; some in each turn,
 * because a program may leave gigabytes.
 * One with arena: the last reference to an arena ends in this file, which then has arena.c free it.
 */
#ifndef LSTACK_REMAINS_H
#define LSTACK_REMAINS_H

#include <stdbool.h>
#include <stdint.h>

struct arena;
struct arenas;
struct conn;

/*
 * Its last process has left it. `gone`: ended, so that no process will look at the pages any more. `kept` tells of each of
 * its sockets the block that the socket still needs.
 */
typedef uint32_t arena_kept_fn(const struct conn *conn);
void remains_begin(struct arena *arena, bool gone, arena_kept_fn *kept);

/* The last reference is gone: frees it, in this turn or later ones. */
void remains_end(struct arena *arena);

/* Some more. True: there is still something to do. */
bool remains_work(struct arenas *arenas);

#endif
