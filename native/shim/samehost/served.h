/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Which program of this host listens where: lines of the pages of the workers. */
#ifndef SHIM_SAMEHOST_SERVED_H
#define SHIM_SAMEHOST_SERVED_H

#include "core/route.h"
#include "samehost/pair_memory.h"

/* True for an address that programs of this host may reach each other by. */
bool served_here(const struct endpoint *to);

/* The first line of a worker's page that names a listener there. `netns`: the caller's network namespace. */
bool served_find(uint64_t netns, const struct endpoint *to, struct served *found);

/* True if an attached program listens there, as far as the pages tell. */
bool served_any(uint64_t netns, const struct endpoint *to);

/* True if a listener of network namespace `netns` is reached from `from`: loopback is each namespace's own. */
bool served_reached(uint64_t netns, uint64_t from, const struct endpoint *to);

/* True while the line stands; also while its worker is away, for pairs go on without. */
bool served_stands(const struct served *served);

/* How many connections may wait there. */
uint32_t served_backlog(const struct served *served);

#endif
