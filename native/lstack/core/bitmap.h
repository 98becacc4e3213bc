/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A set of numbers below 65,536 with a summary, so that walking costs what is in it and not what could be. */
#ifndef LSTACK_BITMAP_H
#define LSTACK_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#define BITMAP_BITS 65536u
#define BITMAP_WORDS (BITMAP_BITS / 64u)

struct bitmap {
	uint64_t summary[BITMAP_WORDS / 64u]; /* bit w: word[w] is not zero */
	uint64_t word[BITMAP_WORDS];
	uint32_t count;
};

static inline bool bitmap_has(const struct bitmap *map, uint32_t n)
{
	return map->word[n / 64u] >> (n % 64u) & 1u;
}

static inline void bitmap_set(struct bitmap *map, uint32_t n)
{
	if (bitmap_has(map, n))
		return;
	map->word[n / 64u] |= 1ull << (n % 64u);
	map->summary[n / 4096u] |= 1ull << (n / 64u % 64u);
	map->count++;
}

static inline void bitmap_clear(struct bitmap *map, uint32_t n)
{
	if (!bitmap_has(map, n))
		return;
	map->word[n / 64u] &= ~(1ull << (n % 64u));
	if (!map->word[n / 64u])
		map->summary[n / 4096u] &= ~(1ull << (n / 64u % 64u));
	map->count--;
}

/* The first member at or after `from`; BITMAP_BITS if there is none. */
static inline uint32_t bitmap_next(const struct bitmap *map, uint32_t from)
{
	while (from < BITMAP_BITS) {
		uint64_t word = map->word[from / 64u] & ~0ull << (from % 64u);

		if (word)
			return from / 64u * 64u + (uint32_t)__builtin_ctzll(word);
		from = (from / 64u + 1) * 64u;
		while (from < BITMAP_BITS) {
			uint64_t summary = map->summary[from / 4096u] & ~0ull << (from / 64u % 64u);

			if (summary) {
				from = (from / 4096u * 64u + (uint32_t)__builtin_ctzll(summary)) * 64u;
				break;
			}
			from = (from / 4096u + 1) * 4096u;
		}
	}
	return BITMAP_BITS;
}

#endif
