/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * References to what descriptors stand for: one of each descriptor, one of each thread inside.
 *
 * A thread looks a descriptor up, takes the lock of what it finds, looks whether the descriptor still stands for it, and takes its
 * reference before it gives the lock back. Another thread may close the descriptor right after the second look, so that the count
 * comes back from 0. Hence the thread that gives the last reference takes the lock, and ends only what has none then: once, by
 * refs_end. Memory is used again but never given back to the system: a thread that comes too late finds the count of another
 * socket, and leaves it alone.
 */
#ifndef SHIM_REFS_H
#define SHIM_REFS_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/atomic.h>

#define REFS_ENDED 0x80000000u /* stays until the memory is used again */

/* A descriptor's, or under the lock. */
static inline void refs_get(_Atomic uint32_t *refs)
{
	gz_add(refs, 1);
}

/* Without descriptor or lock. False: there is none left, and it may be ended at any moment. */
static inline bool refs_get_if_any(_Atomic uint32_t *refs)
{
	uint32_t now = gz_load(refs);

	while (now && !(now & REFS_ENDED))
		if (gz_cas(refs, &now, now + 1))
			return true;
	return false;
}

/* True if it was the last: the caller takes the lock and asks refs_end. */
static inline bool refs_put(_Atomic uint32_t *refs)
{
	return gz_add(refs, (uint32_t)-1) == 1;
}

/* Under the lock. True for one caller, which ends it. */
static inline bool refs_end(_Atomic uint32_t *refs)
{
	uint32_t none = 0;

	return gz_cas(refs, &none, REFS_ENDED);
}

#endif
