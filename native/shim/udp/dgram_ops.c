/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "udp/dgram_ops.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <gazelle/stamp.h>

#include "udp/dgram.h"
#include "udp/dgram_entry.h"
#include "udp/dgram_message.h"

static uint32_t level_of(struct sock *s, uint32_t want)
{
	uint32_t level = 0, shut = gz_load(&dgram_of(s)->shut);

	if (dgram_next(s) >= 0 || shut & 1u << SHUT_RD)
		level |= EPOLLIN | EPOLLRDNORM;
	if (dgram_error(s, false))
		level |= EPOLLERR;
	if (shut & 1u << SHUT_RD)
		level |= EPOLLRDHUP | (shut & 1u << SHUT_WR ? EPOLLHUP : 0u);
	if (want & (EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND) && dgram_has_room(s))
		level |= EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;
	return level;
}

static uint32_t received(struct sock *s)
{
	uint32_t sum = gz_load(&dgram_of(s)->shut);

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct attachment *a;
		struct gz_sock *entry = dgram_entry_at(s, i, &a);

		if (entry)
			sum += gz_load_acquire(&entry->worker.out_head) + gz_load(&entry->worker.aux[GZ_AUX_ERRORS]) + 1;
	}
	return sum;
}

/* The oldest stamp of the entries that have something. */
static uint32_t since(struct sock *s)
{
	uint32_t stamp = 0;
	bool any = false;

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct attachment *a;
		struct gz_sock *entry = dgram_entry_at(s, i, &a);
		uint32_t at;

		if (!entry || gz_load_acquire(&entry->worker.out_head) == gz_load(&entry->app.in_tail))
			continue;
		at = gz_load(&entry->worker.aux[GZ_AUX_READY]);
		if (!any || gz_stamp_before(at, stamp))
			stamp = at;
		any = true;
	}
	return any ? stamp : gz_stamp();
}

const struct sock_ops dgram_ops = {
	.level = level_of,
	.received = received,
	.since = since,
	.interest = entries_interest,
	.close = dgram_close,
};
