/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/arena.h>

#include "arena/arena.h"
#include "arena/quota.h"
#include "arena/remains.h"

/* Free blocks kept warm per order; more are given back to the system. */
#define WARM_BLOCKS 64u

static bool push(struct arena_stack *stack, uint32_t item)
{
	if (stack->count == stack->room) {
		uint32_t room = stack->room ? stack->room * 2 : 64;
		uint32_t *grown = realloc(stack->item, room * sizeof(*grown));
		if (!grown)
			return false;
		stack->item = grown;
		stack->room = room;
	}
	stack->item[stack->count++] = item;
	return true;
}

static bool pop(struct arena_stack *stack, uint32_t *item)
{
	if (!stack->count)
		return false;
	*item = stack->item[--stack->count];
	return true;
}

static void *reserve(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

static void enlist(struct arena *arena)
{
	struct arenas *home = arena->home;

	arena->next = home->all;
	if (arena->next)
		arena->next->prev = arena;
	home->all = arena;
}

static void strike_out(struct arena *arena)
{
	struct arenas *home = arena->home;

	if (home->audit == arena)
		home->audit = arena->next;
	if (arena->next)
		arena->next->prev = arena->prev;
	if (arena->prev)
		arena->prev->next = arena->next;
	else
		home->all = arena->next;
}

struct arena *arena_create(struct arenas *arenas, struct user *user)
{
	struct arena *arena = calloc(1, sizeof(*arena));
	int err;

	if (!arena)
		return NULL;
	arena->home = arenas;
	arena->user = user;
	if (!quota_charge(user, &arena->charges, QUOTA_ARENAS) || !quota_charge(user, &arena->charges, QUOTA_FILES)) {
		errno = EUSERS;
		goto err_free;
	}
	arena->fd = memfd_create("gazelle-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (arena->fd < 0)
		goto err_free;
	if (ftruncate(arena->fd, (off_t)ARENA_SIZE) ||
	    fcntl(arena->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		goto err_close;
	arena->shared = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, arena->fd, 0);
	if (arena->shared == MAP_FAILED)
		goto err_close;
	arena->conns = reserve(GZ_SOCKS_MAX * sizeof(*arena->conns));
	arena->granted = reserve(GZ_SOCKS_MAX * sizeof(*arena->granted));
	if (!arena->conns || !arena->granted) {
		errno = ENOMEM;
		goto err_unmap;
	}
	arena->shared->magic = GZ_ARENA_MAGIC;
	arena->shared->abi_version = GZ_ABI_VERSION;
	arena->shared->socks = GZ_SOCKS_MAX;
	arena->shared->size = ARENA_SIZE;
	arena->next_page = sizeof(struct gz_arena) / GZ_ARENA_PAGE;
	arena->high = 1; /* number 0 means the request ring */
	arena->refs = 1;
	quota_hold(user);
	enlist(arena);
	return arena;

err_unmap:
	err = errno;
	if (arena->conns)
		munmap(arena->conns, GZ_SOCKS_MAX * sizeof(*arena->conns));
	if (arena->granted)
		munmap(arena->granted, GZ_SOCKS_MAX * sizeof(*arena->granted));
	munmap(arena->shared, ARENA_SIZE);
	errno = err;
err_close:
	err = errno;
	close(arena->fd);
	errno = err;
err_free:
	quota_settle(user, &arena->charges);
	free(arena);
	return NULL;
}

int arena_punch(struct arena *arena, uint64_t from, uint64_t bytes)
{
	return fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)bytes) ? -errno : 0;
}

void arena_get(struct arena *arena)
{
	arena->refs++;
}

void arena_put(struct arena *arena)
{
	if (!--arena->refs)
		remains_end(arena);
}

void arena_free(struct arena *arena)
{
	strike_out(arena);
	(void)quota_move(arena->user, QUOTA_MEMORY, arena->memory, 0);
	quota_settle(arena->user, &arena->charges);
	quota_let_go(arena->user);
	munmap(arena->conns, GZ_SOCKS_MAX * sizeof(*arena->conns));
	munmap(arena->granted, GZ_SOCKS_MAX * sizeof(*arena->granted));
	munmap(arena->shared, ARENA_SIZE);
	close(arena->fd);
	free(arena->free_socks.item);
	for (uint32_t order = 0; order <= GZ_BLOCK_ORDER_MAX; order++)
		free(arena->free_blocks[order].item);
	free(arena);
}

uint32_t arena_take_sock(struct arena *arena)
{
	uint32_t n;

	if (!pop(&arena->free_socks, &n)) {
		if (arena->high == GZ_SOCKS_MAX)
			return 0;
		n = arena->high++;
	}
	memset(&arena->shared->sock[n], 0, sizeof(arena->shared->sock[n]));
	return n;
}

void arena_give_sock(struct arena *arena, uint32_t n)
{
	arena->conns[n] = NULL;
	arena->granted[n] = 0;
	/* Without memory for the list the number is lost until the application ends: rare, bounded, harmless. */
	(void)push(&arena->free_socks, n);
}

uint32_t arena_take_block(struct arena *arena, uint32_t order)
{
	uint64_t bytes = 1ull << order, pages = bytes / GZ_ARENA_PAGE;
	uint32_t block;

	if (arena->block_bytes + bytes > ARENA_QUOTA || arena->user->memory_short)
		return 0;
	if (!pop(&arena->free_blocks[order], &block)) {
		if ((arena->next_page + pages) * GZ_ARENA_PAGE > ARENA_SIZE)
			return 0;
		block = GZ_BLOCK(arena->next_page, order);
		arena->next_page += pages;
	}
	arena->block_bytes += bytes;
	return block;
}

void arena_give_block(struct arena *arena, uint32_t block)
{
	uint32_t order = block & 31u;

	if (!block)
		return;
	arena->block_bytes -= GZ_BLOCK_SIZE(block);
	if (arena->remains || arena->free_blocks[order].count >= WARM_BLOCKS)
		(void)arena_punch(arena, GZ_BLOCK_OFFSET(block), GZ_BLOCK_SIZE(block));
	(void)push(&arena->free_blocks[order], block);
}

uint64_t arena_allowed(const struct arena *arena)
{
	uint64_t bytes = sizeof(*arena->shared) + arena->block_bytes;

	for (uint32_t order = GZ_BLOCK_ORDER_MIN; order <= GZ_BLOCK_ORDER_MAX; order++) {
		uint64_t count = arena->free_blocks[order].count;

		bytes += (count < WARM_BLOCKS ? count : WARM_BLOCKS) << order;
	}
	return bytes;
}
