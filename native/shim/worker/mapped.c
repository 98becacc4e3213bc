/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "worker/mapped.h"

#include <errno.h>
#include <sys/mman.h>

#include <gazelle/abi.h>
#include <gazelle/control.h>

#include "core/attachment.h"
#include "core/mapping.h"
#include "core/window.h"

int mapped_channel(struct attachment *a, int fd)
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

int mapped_all(struct attachment *a, const struct gz_message *message, const int *fds)
{
	int err;

	a->blocks_from = sizeof(struct gz_arena);
	if (message->channel_size != sizeof(struct gz_channel) || message->arena_size < sizeof(struct gz_arena))
		return -EPROTO;
	if (a->arena_size && a->arena_size != message->arena_size)
		return -EPROTO; /* all workers of this version make them alike */
	void *arena = mapping_sealed(fds[GZ_WELCOME_ARENA], sizeof(struct gz_arena), a->arena);
	if (!arena)
		return -errno;
	a->arena = arena;
	a->arena_size = message->arena_size;
	err = window_open(a, fds[GZ_WELCOME_ARENA]);
	if (err)
		return err;
	if (a->arena->magic != GZ_ARENA_MAGIC || a->arena->socks != GZ_SOCKS_MAX)
		return -EPROTO;
	void *page = mapping_of(fds[GZ_WELCOME_PAGE], sizeof(*a->page), PROT_READ, (void *)a->page);
	if (!page)
		return -errno;
	a->page = page;
	if (a->channel)
		munmap(a->channel, sizeof(*a->channel));
	a->channel = NULL;
	err = mapped_channel(a, fds[GZ_WELCOME_CHANNEL]);
	return err;
}
