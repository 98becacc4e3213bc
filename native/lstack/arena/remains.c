/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "arena/remains.h"

#include <stdlib.h>
#include <unistd.h>

#include <gazelle/arena.h>

#include "arena/arena.h"

/* Given back per turn: 4096 pages, about a millisecond. */
#define SLICE (16ull << 20)

struct range {
	uint64_t from, to;
};

struct remains {
	uint64_t at; /* before this nothing is left but what is kept */
	bool ended;  /* no reference is left either */
	bool listed; /* in home->remains */
	uint32_t count, next;
	struct range keep[]; /* in their order */
};

static int compare(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

/* The socket table, and what its connections may have to send again. */
static struct remains *take_stock(const struct arena *arena, arena_kept_fn *kept)
{
	uint32_t room = 1;
	struct remains *remains;

	for (uint32_t n = 1; n < arena->high; n++)
		room += arena->conns[n] != NULL;
	remains = calloc(1, sizeof(*remains) + room * sizeof(remains->keep[0]));
	if (!remains)
		return NULL;
	remains->keep[remains->count++] = (struct range){ 0, sizeof(*arena->shared) };
	for (uint32_t n = 1; n < arena->high; n++) {
		uint32_t block = arena->conns[n] ? kept(arena->conns[n]) : 0;

		if (block)
			remains->keep[remains->count++] =
				(struct range){ GZ_BLOCK_OFFSET(block), GZ_BLOCK_OFFSET(block) + GZ_BLOCK_SIZE(block) };
	}
	qsort(remains->keep, remains->count, sizeof(remains->keep[0]), compare);
	return remains;
}

static void enlist(struct arena *arena)
{
	arena->remains->listed = true;
	arena->remains_next = arena->home->remains;
	arena->home->remains = arena;
}

void remains_begin(struct arena *arena, bool gone, arena_kept_fn *kept)
{
	if (!gone || arena->remains)
		return; /* they may still read what has come for them, and hold the pages anyway */
	arena->remains = take_stock(arena, kept); /* without memory for it they go with the last orphan */
	if (arena->remains)
		enlist(arena);
}

void remains_end(struct arena *arena)
{
	struct remains *remains = arena->remains;

	if (!remains) {
		arena_free(arena);
		return;
	}
	remains->at = 0;
	remains->count = remains->next = 0;
	remains->ended = true;
	if (!remains->listed)
		enlist(arena);
}

/* The next pages that are not kept, at most a slice. False: there are none. */
static bool find(struct arena *arena, struct range *found)
{
	struct remains *remains = arena->remains;

	for (;;) {
		off_t data = lseek(arena->fd, (off_t)remains->at, SEEK_DATA);
		const struct range *keep = &remains->keep[remains->next];

		if (data < 0)
			return false;
		found->from = (uint64_t)data;
		found->to = found->from + SLICE;
		while (remains->next < remains->count && keep->to <= found->from)
			keep = &remains->keep[++remains->next];
		if (remains->next == remains->count || keep->from >= found->to)
			return true;
		if (keep->from > found->from) {
			found->to = keep->from;
			return true;
		}
		remains->at = keep->to;
	}
}

bool remains_work(struct arenas *arenas)
{
	struct arena *arena = arenas->remains;
	struct range some;

	if (!arena)
		return false;
	if (find(arena, &some) && !arena_punch(arena, some.from, some.to - some.from)) {
		arena->remains->at = some.to;
		return true;
	}
	arenas->remains = arena->remains_next;
	arena->remains->listed = false;
	if (arena->remains->ended) {
		free(arena->remains);
		arena_free(arena);
	}
	return arenas->remains != NULL;
}
