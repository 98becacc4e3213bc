/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "worker/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <gazelle/abi.h>

#include "worker/attachment.h"
#include "samehost/pair.h"
#include "core/real.h"
#include "core/shim.h"

/* Maps `size` bytes of fd, over `at` if that is set (the same size was there before). NULL on failure. */
void *mapping_of(int fd, size_t size, int prot, void *at)
{
	struct stat st;

	if (fd >= 0 && (fstat(fd, &st) || (uint64_t)st.st_size < size)) {
		errno = EPROTO;
		return NULL;
	}
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *p = mmap(at, size, prot, flags | MAP_NORESERVE | (at ? MAP_FIXED : 0), fd, 0);
	if (p == MAP_FAILED)
		return NULL;
	(void)madvise(p, size, MADV_DONTDUMP); /* a core would be as large as all of it */
	return p;
}

void *mapping_sealed(int fd, size_t size, void *at)
{
	int seals = REAL(fcntl)(fd, F_GET_SEALS);

	if (seals < 0 || !(seals & F_SEAL_SHRINK)) {
		errno = EPROTO;
		return NULL;
	}
	return mapping_of(fd, size, PROT_READ | PROT_WRITE, at);
}

int mapping_channel(struct attachment *a, int fd)
{
	/* In the child of a fork the parent's channel must not be written to, so a fresh place; the old one was unmapped. */
	struct gz_channel *channel = mapping_sealed(fd, sizeof(*channel), NULL);

	if (!channel)
		return -errno;
	if (channel->magic != GZ_CHANNEL_MAGIC || channel->abi_version != GZ_ABI_VERSION) {
		munmap(channel, sizeof(*channel));
		return -EPROTO;
	}
	for (uint32_t i = 0; i < GZ_KERNEL_REASONS; i++)
		gz_store(&channel->kernel_sockets[i], a->slot ? 0 : gz_load(&shim.kernel[i]));
	gz_store(&channel->pair_sockets, a->slot ? 0 : gz_load(&shim.paired));
	a->channel = channel;
	return 0;
}

int mapping_all(struct attachment *a, const struct gz_message *message, const int *fds)
{
	int err;

	a->blocks_from = sizeof(struct gz_arena);
	if (message->channel_size != sizeof(struct gz_channel) || message->arena_size < sizeof(struct gz_arena))
		return -EPROTO;
	if (a->arena && a->arena_size != message->arena_size) {
		munmap(a->arena, a->arena_size);
		a->arena = NULL;
	}
	void *arena = mapping_sealed(fds[GZ_WELCOME_ARENA], message->arena_size, a->arena);
	if (!arena)
		return -errno;
	a->arena = arena;
	a->arena_size = message->arena_size;
	if (a->arena->magic != GZ_ARENA_MAGIC || a->arena->socks != GZ_SOCKS_MAX)
		return -EPROTO;
	void *page = mapping_of(fds[GZ_WELCOME_PAGE], sizeof(*a->page), PROT_READ, (void *)a->page);
	if (!page)
		return -errno;
	a->page = page;
	if (a->channel)
		munmap(a->channel, sizeof(*a->channel));
	a->channel = NULL;
	err = mapping_channel(a, fds[GZ_WELCOME_CHANNEL]);
	return err;
}

int mapping_pair(struct attachment *a, int fd)
{
	struct gz_pair *pair = mapping_sealed(fd, GZ_PAIR_SIZE, a->arena);

	if (!pair)
		return -errno;
	a->arena = (struct gz_arena *)pair;
	a->arena_size = GZ_PAIR_SIZE;
	a->blocks_from = GZ_PAIR_HEADER;
	return pair->magic == GZ_PAIR_MAGIC && pair->abi_version == GZ_ABI_VERSION && pair->socks == GZ_PAIR_SOCKS
	               ? 0
	               : -EPROTO;
}
