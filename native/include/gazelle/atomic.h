/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The only place that names memory orders. Everything two processes share is read and written through these, and every
 * use says in a comment at the call site what it pairs with.
 *
 *   gz_load / gz_store            relaxed: the value alone matters, or one side only ever writes it
 *   gz_load_acquire               sees everything written before the gz_store_release it reads from
 *   gz_store_release              publishes everything written before it
 *   gz_fence                      the full fence of the two-phase sleep: declare, fence, look again
 */
#ifndef GAZELLE_ATOMIC_H
#define GAZELLE_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define gz_load(p) atomic_load_explicit((p), memory_order_relaxed)
#define gz_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define gz_store(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define gz_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define gz_or(p, v) atomic_fetch_or_explicit((p), (v), memory_order_acq_rel)
#define gz_and(p, v) atomic_fetch_and_explicit((p), (v), memory_order_acq_rel)
#define gz_add(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define gz_exchange(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)
#define gz_cas(p, expected, v) \
	atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, memory_order_acquire)
#define gz_fence() atomic_thread_fence(memory_order_seq_cst)

/* One pause of a spinning loop; never used alone: every spin also yields (see the wait policy of the shim). */
static inline void gz_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield" ::: "memory");
#endif
}

#endif
