/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A bell says "socket n changed": a bitmap with a summary, in shared memory, rung by one side and taken by the other.
 * Ringing twice is ringing once, so a bell never fills and needs no flow control. It carries no state: the side that takes a
 * bit recomputes readiness from the socket's two ends, so a lost, doubled or forged bit is harmless.
 *
 * Waking: the owner of a bell declares itself asleep (gz_bell.asleep of an event queue, worker_page.asleep of a worker),
 * fences, looks once more, and only then blocks; the ringer sets the bit, fences, and wakes the owner (wake.h) only
 * if it sees the declaration.
 */
#ifndef GAZELLE_BELL_H
#define GAZELLE_BELL_H

#include <gazelle/atomic.h>

#define GZ_BELL_SOCKS 65536u /* sockets one bell can name */
#define GZ_BELL_WORDS (GZ_BELL_SOCKS / 64u)
#define GZ_BELL_SUMMARY (GZ_BELL_WORDS / 64u)

struct gz_bell {
	_Alignas(64) _Atomic uint32_t asleep; /* owner writes: 1 = wake me */
	_Atomic uint32_t cpu;                 /* owner writes: 1 + the CPU it looks from; 0 = not known */
	_Alignas(64) _Atomic uint64_t summary[GZ_BELL_SUMMARY]; /* bit w: words[w] may be non-zero; ringer sets, owner takes */
	_Alignas(64) _Atomic uint64_t words[GZ_BELL_WORDS]; /* bit n: socket n changed; ringer sets, owner takes */
};

/*
 * Rings socket n. Ringer's side, any thread. Pairs with the exchange in gz_bell_take: what was written before the ring is
 * seen by the side that takes the bit. Returns true if the bit was new.
 */
static inline bool gz_bell_ring(struct gz_bell *bell, uint32_t n)
{
	uint32_t w = (n / 64u) % GZ_BELL_WORDS;
	uint64_t bit = 1ull << (n % 64u), sum = 1ull << (w % 64u);
	bool fresh = !(gz_or(&bell->words[w], bit) & bit);

	/* The summary follows its word, and is set even if the bit was old: the owner clears it before it takes the word. */
	if (!(gz_load(&bell->summary[w / 64u]) & sum) || fresh)
		gz_or(&bell->summary[w / 64u], sum);
	return fresh;
}

/* True if socket n is rung and was not taken yet. */
static inline bool gz_bell_rings(const struct gz_bell *bell, uint32_t n)
{
	return gz_load(&bell->words[(n / 64u) % GZ_BELL_WORDS]) >> n % 64u & 1;
}

/* True if anything may be rung. Owner's side; after gz_fence() it is the second look of the two-phase sleep. */
static inline bool gz_bell_pending(const struct gz_bell *bell)
{
	for (uint32_t i = 0; i < GZ_BELL_SUMMARY; i++)
		if (gz_load(&bell->summary[i]))
			return true;
	return false;
}

typedef void gz_bell_fn(void *ctx, uint32_t n);

/*
 * Takes at most about `budget` rung sockets (whole words: up to 63 more), calling fn for each. Owner's side; one taker at
 * a time. Returns how many were taken. The bits not taken stay rung.
 */
static inline uint32_t gz_bell_take(struct gz_bell *bell, uint32_t budget, gz_bell_fn *fn, void *ctx)
{
	uint32_t taken = 0;

	for (uint32_t i = 0; i < GZ_BELL_SUMMARY; i++) {
		if (!gz_load(&bell->summary[i]))
			continue;
		/* Clear the summary first, then take the words: a ring in between sets it again. */
		uint64_t sum = gz_exchange(&bell->summary[i], 0);
		while (sum) {
			if (taken >= budget) {
				gz_or(&bell->summary[i], sum);
				return taken;
			}
			uint32_t w = i * 64u + (uint32_t)__builtin_ctzll(sum);
			sum &= sum - 1;
			uint64_t bits = gz_exchange(&bell->words[w], 0);
			while (bits) {
				fn(ctx, w * 64u + (uint32_t)__builtin_ctzll(bits));
				bits &= bits - 1;
				taken++;
			}
		}
	}
	return taken;
}

#endif
