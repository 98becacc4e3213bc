/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A byte FIFO between two processes. Its memory is a block (a power of two, at least a page); its indices are free-running
 * byte counts that live in the two ends of a socket (struct gz_end): the producer's out_head, the consumer's in_tail.
 * Each end is one cache line written by one side, so a request and its answer move two lines, not four.
 *
 * Whenever the producer finds the FIFO empty it sets out_base = out_head: data then starts at the block's first byte, so a
 * socket that exchanges small messages touches one page for ever. Only an empty FIFO changes its base or its block, and
 * the consumer reads both only after it has seen new bytes, hence no further protocol.
 *
 * Both sides treat what the other wrote as hostile: an index difference larger than the block is reported as
 * GZ_FIFO_BROKEN, and offsets are masked, so no index can reach outside the block.
 */
#ifndef GAZELLE_FIFO_H
#define GAZELLE_FIFO_H

#include <stddef.h>
#include <string.h>

#include <gazelle/atomic.h>

#define GZ_FIFO_BROKEN UINT32_MAX

/* One side's half of a socket: 64 bytes, written by that side only. */
struct gz_end {
	_Atomic uint32_t out_head;  /* bytes this side has produced */
	_Atomic uint32_t out_base;  /* out_head at which the block's offset 0 lies */
	_Atomic uint32_t in_tail;   /* bytes this side has consumed of the other's */
	_Atomic uint32_t flags;     /* GZ_WORKER_* or GZ_APP_* (arena.h) */
	_Atomic uint32_t error;     /* errno the connection ended with, 0 = none */
	_Atomic uint32_t out_block; /* packed block (arena.h) of this side's output; worker's end only, see gz_sock */
	_Atomic uint32_t in_block;  /* packed block of this side's input; worker's end only */
	_Atomic uint32_t aux[9];    /* by socket kind, see gz_sock */
};
_Static_assert(sizeof(struct gz_end) == 64, "an end is one cache line");

/* Bytes the consumer `me` may read of what `peer` produced, or GZ_FIFO_BROKEN. The acquire pairs with gz_fifo_publish. */
static inline uint32_t gz_fifo_readable(const struct gz_end *me, const struct gz_end *peer, uint32_t size)
{
	uint32_t n = gz_load_acquire(&peer->out_head) - gz_load(&me->in_tail);
	return n <= size ? n : GZ_FIFO_BROKEN;
}

/* Bytes the producer `me` may write, or GZ_FIFO_BROKEN. The acquire pairs with gz_fifo_consume: the room is really free. */
static inline uint32_t gz_fifo_writable(const struct gz_end *me, const struct gz_end *peer, uint32_t size)
{
	uint32_t used = gz_load(&me->out_head) - gz_load_acquire(&peer->in_tail);
	return used <= size ? size - used : GZ_FIFO_BROKEN;
}

/* Copies `len` bytes to the place of index `at` in a block of `size` bytes. */
static inline void gz_fifo_copy_in(uint8_t *block, uint32_t size, uint32_t base, uint32_t at, const void *src, uint32_t len)
{
	uint32_t off = (at - base) & (size - 1), first = size - off < len ? size - off : len;
	memcpy(block + off, src, first);
	memcpy(block, (const uint8_t *)src + first, len - first);
}

/* Copies `len` bytes from the place of index `at`. */
static inline void gz_fifo_copy_out(const uint8_t *block, uint32_t size, uint32_t base, uint32_t at, void *dst, uint32_t len)
{
	uint32_t off = (at - base) & (size - 1), first = size - off < len ? size - off : len;
	memcpy(dst, block + off, first);
	memcpy((uint8_t *)dst + first, block, len - first);
}

/* Producer, before it writes: rebases an empty FIFO. Returns the base to write with. */
static inline uint32_t gz_fifo_rebase(struct gz_end *me, const struct gz_end *peer)
{
	uint32_t head = gz_load(&me->out_head);
	if (gz_load_acquire(&peer->in_tail) == head)
		gz_store(&me->out_base, head);
	return gz_load(&me->out_base);
}

/* Producer: makes `len` written bytes visible. Pairs with gz_fifo_readable. */
static inline void gz_fifo_publish(struct gz_end *me, uint32_t len)
{
	gz_store_release(&me->out_head, gz_load(&me->out_head) + len);
}

/* Consumer: gives back `len` read bytes. Pairs with gz_fifo_writable. */
static inline void gz_fifo_consume(struct gz_end *me, uint32_t len)
{
	gz_store_release(&me->in_tail, gz_load(&me->in_tail) + len);
}

#endif
