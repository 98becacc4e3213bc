/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * lwIP's memory: free lists by size, so that a packet costs no malloc. Memory comes in slabs of 64 KiB cut into cells of
 * one size; a slab's header says which, so freeing needs no size. Slabs are kept for their size for ever, but what the
 * kernel can take back of large, rare cells (over HEAP_CELL_MAX) goes back at once. One thread.
 */
#ifndef LSTACK_HEAP_H
#define LSTACK_HEAP_H

#include <stddef.h>
#include <stdint.h>

#include <arch/cc.h>

#define HEAP_CELL_MAX 16384u

/* No more than `bytes` in all (0: no limit, the start). Beyond it lwip_heap_alloc returns NULL. */
void heap_set_limit(size_t bytes);

/* Bytes taken from the kernel, and allocations refused by the limit or the kernel. */
size_t heap_taken(void);
uint64_t heap_refused(void);

#endif
