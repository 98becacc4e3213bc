/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * When a socket became ready: read from the counter that all CPUs of the host share, so that what workers and programs have stamped
 * can be put in order. A step is less than a microsecond, and the count goes round after minutes: only differences mean something.
 * No clock of the system, because every ring would pay for it.
 */
#ifndef GAZELLE_STAMP_H
#define GAZELLE_STAMP_H

#include <stdbool.h>
#include <stdint.h>

static inline uint32_t gz_stamp(void)
{
#if defined(__x86_64__)
	return (uint32_t)(__builtin_ia32_rdtsc() >> 8);
#elif defined(__aarch64__)
	uint64_t count;

	__asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(count));
	return (uint32_t)(count >> 2);
#endif
}

/* True if a stamp is older than another. */
static inline bool gz_stamp_before(uint32_t stamp, uint32_t other)
{
	return (int32_t)(stamp - other) < 0;
}

#endif
