/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The one clock of a worker: CLOCK_MONOTONIC in nanoseconds, also on its page. */
#ifndef LSTACK_CLOCK_H
#define LSTACK_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

#endif
