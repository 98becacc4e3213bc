/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Durations by size: exact below 16 ns, then sixteen buckets for each power of two, so that a bucket is at most 1/16 wider
 * than its lower bound. One writer.
 */
#ifndef GAZELLE_HISTOGRAM_H
#define GAZELLE_HISTOGRAM_H

#include <gazelle/atomic.h>

#define GZ_HISTOGRAM_BUCKETS 464u /* up to 2^32 ns; what takes longer counts as that */

struct gz_histogram {
	_Atomic uint64_t count;
	_Atomic uint64_t max_ns;
	_Atomic uint32_t bucket[GZ_HISTOGRAM_BUCKETS];
};

static inline uint32_t gz_histogram_index(uint64_t ns)
{
	uint32_t v = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX, shift;

	if (v < 16)
		return v;
	shift = 27u - (uint32_t)__builtin_clz(v); /* v >> shift has five bits */
	return 16u * (shift + 1) + (v >> shift) - 16u;
}

static inline void gz_histogram_add(struct gz_histogram *h, uint64_t ns)
{
	_Atomic uint32_t *bucket = &h->bucket[gz_histogram_index(ns)];

	gz_store(bucket, gz_load(bucket) + 1);
	if (ns > gz_load(&h->max_ns))
		gz_store(&h->max_ns, ns);
	gz_store(&h->count, gz_load(&h->count) + 1);
}

#endif
