/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "core/window.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/attachment.h"
#include "core/fdtable.h"
#include "core/real.h"

#define WINDOW (64ull << 20)
#define OVERLAP (1ull << GZ_BLOCK_ORDER_MAX) /* a block that begins in a window ends in it, too */

static uint64_t size_of(const struct attachment *a, uint32_t index)
{
	uint64_t rest = a->arena_size - a->blocks_from - index * WINDOW;

	return rest < WINDOW + OVERLAP ? rest : WINDOW + OVERLAP;
}

static uint8_t *map(struct attachment *a, uint32_t index, int fd, uint8_t *at)
{
	int flags = (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | MAP_NORESERVE | (at ? MAP_FIXED : 0);
	uint64_t size = size_of(a, index);
	void *p = mmap(at, size, PROT_READ | PROT_WRITE, flags, fd, fd < 0 ? 0 : (off_t)(a->blocks_from + index * WINDOW));

	if (p == MAP_FAILED)
		return NULL;
	(void)madvise(p, size, MADV_DONTDUMP);
	return p;
}

/* Addresses stay (attachment.h). */
static void show(struct attachment *a, int fd)
{
	for (uint32_t i = 0; i < ATTACHMENT_WINDOWS; i++) {
		uint8_t *at = gz_load(&a->window[i]);

		if (at)
			(void)map(a, i, fd, at);
	}
}

int window_open(struct attachment *a, int fd)
{
	struct stat st;
	int own;

	if (a->arena_size < a->blocks_from || a->arena_size - a->blocks_from > ATTACHMENT_WINDOWS * WINDOW ||
	    fstat(fd, &st) || (uint64_t)st.st_size < a->arena_size)
		return -EPROTO;
	own = REAL(fcntl)(fd, F_DUPFD_CLOEXEC, 0);
	if (own < 0)
		return -errno;
	if (a->memory_fd > 0)
		fd_own_close(&a->memory_fd);
	fd_own(own, &a->memory_fd);
	show(a, a->memory_fd);
	return 0;
}

void window_close(struct attachment *a)
{
	if (a->memory_fd > 0)
		fd_own_close(&a->memory_fd);
	show(a, -1);
}

static uint8_t *at(struct attachment *a, uint64_t offset)
{
	uint64_t from = offset - a->blocks_from;
	uint32_t index = (uint32_t)(from / WINDOW);
	uint8_t *window = gz_load_acquire(&a->window[index]), *none = NULL; /* pairs with the cas: it is mapped */

	if (__builtin_expect(!window, 0)) {
		window = a->memory_fd > 0 ? map(a, index, a->memory_fd, NULL) : NULL;
		if (window && !gz_cas(&a->window[index], &none, window)) {
			(void)munmap(window, size_of(a, index));
			window = none; /* another thread was faster */
		}
	}
	return window ? window + from % WINDOW : NULL;
}

uint8_t *window_block(struct attachment *a, uint32_t block)
{
	uint32_t order = block & 31u;
	uint64_t offset = GZ_BLOCK_OFFSET(block);

	if (order < GZ_BLOCK_ORDER_MIN || order > GZ_BLOCK_ORDER_MAX || offset < a->blocks_from ||
	    offset + (1ull << order) > a->arena_size)
		return NULL;
	return at(a, offset);
}
