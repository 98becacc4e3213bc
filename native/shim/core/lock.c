/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/lock.h"
#include "core/real.h"

#define LOOKS_BEFORE_SLEEP 64

void lock_wait(struct lock *lock)
{
	for (int i = 0; i < LOOKS_BEFORE_SLEEP; i++) {
		uint32_t none = 0;

		if (gz_cas(&lock->word, &none, 1))
			return;
		if (i % 16 == 15)
			sched_yield();
		gz_pause();
	}
	while (gz_exchange(&lock->word, 2))
		REAL(syscall)(SYS_futex, &lock->word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
}

void lock_wake(struct lock *lock)
{
	REAL(syscall)(SYS_futex, &lock->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
