/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The counters of a worker page (enum gz_counter). The worker alone writes them, so a plain load and store count. */
#ifndef LSTACK_COUNTERS_H
#define LSTACK_COUNTERS_H

#include <stdint.h>

#include <gazelle/atomic.h>
#include <gazelle/worker_page.h>

static inline void counter_add(struct gz_worker_page *page, enum gz_counter counter, uint64_t n)
{
	_Atomic uint64_t *c = &page->counters[counter];
	gz_store(c, gz_load(c) + n);
}

static inline void counter_set(struct gz_worker_page *page, enum gz_counter counter, uint64_t value)
{
	gz_store(&page->counters[counter], value);
}

#endif
