/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The arena of one application (a program and what it forks): a sparse memfd with the table of sockets and the blocks of
 * their FIFOs. Only touched pages cost memory. All bookkeeping is private to the worker; nothing is read back from what
 * the application could have written.
 */
#ifndef LSTACK_ARENA_H
#define LSTACK_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gazelle/arena.h>

struct app;
struct conn;
struct remains;
struct user;

/* FIFO memory one application may use, bytes: beyond it connections stay at the blocks they have. */
#define ARENA_QUOTA (8ull << 30)
/* Sparse size of the memfd: every socket at its usual block, with room for the biggest ones within the quota. */
#ifndef ARENA_SIZE /* under valgrind there is less address space: meson setup -Dc_args=-DARENA_SIZE=0x100000000ull */
#define ARENA_SIZE (16ull << 30)
#endif

/* All arenas of a worker. */
struct arenas {
	struct arena *all;     /* also those whose processes have ended */
	struct arena *audit;   /* where audit_some goes on; NULL: from the start */
	struct arena *remains; /* those whose memory is being given back */
};

struct arena_stack {
	uint32_t *item;
	uint32_t count, room;
};

struct arena {
	struct gz_arena *shared;
	int fd;
	struct arenas *home;
	struct user *user;          /* who pays for it */
	uint32_t charges;           /* for what (quota.h) */
	struct arena *next, *prev;  /* home->all */
	struct arena *remains_next; /* home->remains (remains.h) */
	struct remains *remains;    /* NULL: it has processes */
	uint32_t refs;              /* attached processes, plus connections */
	struct app *apps;           /* processes that share it; NULL: they have ended */
	uint32_t turn;              /* whom in that list a connection for one of several wakes next */
	struct conn **conns;        /* [GZ_SOCKS_MAX] what a number is: NULL = free or granted */
	uint16_t *granted; /* [GZ_SOCKS_MAX] attach slot + 1 of the process whose stock the number is in, 0 = none */
	uint32_t high;     /* numbers >= high were never used */
	uint32_t serial;
	bool seen;            /* one of its processes was detached, and may look at the pages still */
	uint32_t program;     /* number of the program whose it is: gz_listener.program; no two arenas have the same */
	uint64_t next_page;   /* first page never used for a block */
	uint64_t block_bytes; /* in use */
	uint64_t memory;      /* bytes of pages that exist, as last counted (audit.h) */
	struct arena_stack free_socks;
	struct arena_stack free_blocks[GZ_BLOCK_ORDER_MAX + 1];
};

/* NULL and errno: no memory, no descriptor, or the user has as many as he may. The caller holds one reference. */
struct arena *arena_create(struct arenas *arenas, struct user *user);
void arena_get(struct arena *arena);
/* The last reference gives it to remains.c, which frees it. */
void arena_put(struct arena *arena);
void arena_free(struct arena *arena);

/* A free socket number, or 0 if all are taken. Its entry is zeroed. */
uint32_t arena_take_sock(struct arena *arena);
void arena_give_sock(struct arena *arena, uint32_t n);

/* A block of 2^order bytes, packed (GZ_BLOCK); 0 if quota or address space is used up. */
uint32_t arena_take_block(struct arena *arena, uint32_t order);
/* 0 is allowed. Big blocks give their memory back to the system. */
void arena_give_block(struct arena *arena, uint32_t block);

/* Gives pages back to the system; they read as zeros then. 0 or -errno. */
int arena_punch(struct arena *arena, uint64_t from, uint64_t bytes);

/* How many bytes of pages can exist if its processes touch nothing but what they were given. */
uint64_t arena_allowed(const struct arena *arena);

/* The smallest order of block that holds `bytes`, at most GZ_BLOCK_ORDER_MAX. */
static inline uint32_t arena_order(uint32_t bytes)
{
	uint32_t order = GZ_BLOCK_ORDER_MIN;

	while (order < GZ_BLOCK_ORDER_MAX && 1u << order < bytes)
		order++;
	return order;
}

static inline uint8_t *arena_block(const struct arena *arena, uint32_t block)
{
	return (uint8_t *)arena->shared + GZ_BLOCK_OFFSET(block);
}

#endif
