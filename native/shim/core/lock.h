/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A lock between the threads of one process: a futex word, 0 free, 1 held, 2 held with sleepers. Held for a copy or a few list
 * operations, never while waiting for a peer's data. No signal handler of the program runs in a thread that holds one, and none is
 * cancelled (inside.h). A child of fork may simply zero the locks other threads held (fork.c).
 *
 * Order: a socket's rx, its tx, shim.lock, an attachment's post; and after any of these shim.items, then an epoll set's.
 */
#ifndef SHIM_LOCK_H
#define SHIM_LOCK_H

#include <sys/single_threaded.h>

#include <gazelle/atomic.h>

#include "core/inside.h"

struct lock {
	_Atomic uint32_t word;
};

void lock_wait(struct lock *lock);
void lock_wake(struct lock *lock);

/* Takes the lock. While the process has one thread a plain store does: signal handlers wait (inside.h). */
static inline void lock_take(struct lock *lock)
{
	uint32_t none = 0;

	inside_enter();
	if (__libc_single_threaded)
		gz_store(&lock->word, 1);
	else if (__builtin_expect(!gz_cas(&lock->word, &none, 1), 0))
		lock_wait(lock);
}

/* True if it was free and is ours now. */
static inline bool lock_try(struct lock *lock)
{
	uint32_t none = 0;

	inside_enter();
	if (gz_cas(&lock->word, &none, 1))
		return true;
	inside_leave();
	return false;
}

static inline void lock_give(struct lock *lock)
{
	if (__libc_single_threaded)
		gz_store(&lock->word, 0);
	else if (__builtin_expect(gz_exchange(&lock->word, 0) == 2, 0))
		lock_wake(lock);
	inside_leave();
}

#endif
