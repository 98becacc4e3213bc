/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "tcp/heap.h"

#include <string.h>
#include <sys/mman.h>

/* What is free may not be touched: with AddressSanitizer a use after free, which the free lists would hide, is an error. */
#ifndef __has_feature /* clang has no macro of its own for it */
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

#define SLAB 65536u
#define CHUNK (4u << 20) /* what is asked of the kernel at a time */
#define HEADER 64u

/* At the start of every slab; cells follow at HEADER. A large allocation is a slab of its own with class LARGE. */
struct slab {
	uint32_t class;
	size_t mapped; /* LARGE: bytes to unmap */
};

struct cell {
	struct cell *next;
};

static const uint16_t sizes[] = { 32,  64,  96,   128,  160,  192,  256,  320,  384,
	                          512, 768, 1024, 1600, 2176, 4096, 8192, 16384 };
#define CLASSES (sizeof(sizes) / sizeof(sizes[0]))
#define LARGE 255u

static struct cell *free_cells[CLASSES];
static uint8_t class_of[HEAP_CELL_MAX / 32 + 1]; /* by (size + 31) / 32 */
static uint8_t *chunk, *chunk_end;
static size_t limit, taken;
static uint64_t refused;

void heap_set_limit(size_t bytes)
{
	limit = bytes;
}

size_t heap_taken(void)
{
	return taken;
}

uint64_t heap_refused(void)
{
	return refused;
}

/* Address space aligned to SLAB. NULL: refused. */
static uint8_t *take(size_t bytes)
{
	uint8_t *base, *aligned;

	if (limit && taken + bytes > limit)
		return NULL;
	base = mmap(NULL, bytes + SLAB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return NULL;
	aligned = (uint8_t *)(((uintptr_t)base + SLAB - 1) & ~(uintptr_t)(SLAB - 1));
	if (aligned > base)
		munmap(base, (size_t)(aligned - base));
	munmap(aligned + bytes, (size_t)(base + SLAB - aligned));
	taken += bytes;
	return aligned;
}

static void fill_class_table(void)
{
	for (uint32_t class = 0, i = 0; i <= HEAP_CELL_MAX / 32; i++) {
		while (sizes[class] < i * 32)
			class ++;
		class_of[i] = (uint8_t) class;
	}
}

/* One more slab for a class: its cells onto the free list. */
static struct cell *grow(uint32_t class)
{
	struct slab *slab;

	if (chunk == chunk_end) {
		chunk = take(CHUNK);
		chunk_end = chunk ? chunk + CHUNK : NULL;
		if (!chunk)
			return NULL;
	}
	slab = (struct slab *)chunk;
	chunk += SLAB;
	slab->class = class;
	for (uint32_t at = HEADER; at + sizes[class] <= SLAB; at += sizes[class]) {
		struct cell *cell = (struct cell *)((uint8_t *)slab + at);

		cell->next = free_cells[class];
		free_cells[class] = cell;
		ASAN_POISON_MEMORY_REGION(cell, sizes[class]);
	}
	return free_cells[class];
}

static void *alloc_large(size_t size)
{
	size_t bytes = (size + HEADER + 4095) & ~(size_t)4095;
	struct slab *slab = size < SIZE_MAX / 2 ? (struct slab *)take(bytes) : NULL;

	if (!slab)
		return NULL;
	slab->class = LARGE;
	slab->mapped = bytes;
	return (uint8_t *)slab + HEADER;
}

void *lwip_heap_alloc(size_t size)
{
	struct cell *cell;
	uint32_t class;

	if (size > HEAP_CELL_MAX) {
		void *p = alloc_large(size);

		refused += !p;
		return p;
	}
	if (!class_of[HEAP_CELL_MAX / 32])
		fill_class_table();
	class = class_of[(size + 31) / 32];
	cell = free_cells[class];
	if (!cell) {
		cell = grow(class);
		if (!cell) {
			refused++;
			return NULL;
		}
	}
	ASAN_UNPOISON_MEMORY_REGION(cell, sizeof(*cell));
	free_cells[class] = cell->next;
	ASAN_POISON_MEMORY_REGION(cell, sizeof(*cell)); /* of what is asked for, and no more, the next line lifts it */
	ASAN_UNPOISON_MEMORY_REGION(cell, size);
	return cell;
}

void *lwip_heap_calloc(size_t count, size_t size)
{
	void *p;

	if (size && count > SIZE_MAX / size)
		return NULL;
	p = lwip_heap_alloc(count * size);
	if (p)
		memset(p, 0, count * size);
	return p;
}

void lwip_heap_free(void *p)
{
	struct slab *slab = (struct slab *)((uintptr_t)p & ~(uintptr_t)(SLAB - 1));
	struct cell *cell = p;

	if (!p)
		return;
	if (slab->class == LARGE) {
		taken -= slab->mapped;
		munmap(slab, slab->mapped);
		return;
	}
	ASAN_UNPOISON_MEMORY_REGION(cell, sizeof(*cell));
	cell->next = free_cells[slab->class];
	free_cells[slab->class] = cell;
	ASAN_POISON_MEMORY_REGION(cell, sizes[slab->class]);
}
