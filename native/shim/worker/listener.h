/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What a listening TCP socket has beyond its struct sock: for the parts that bring it connections. */
#ifndef SHIM_LISTENER_H
#define SHIM_LISTENER_H

#include "core/sock.h"
#include "worker/entries.h"

struct listener {
	struct entries entries; /* first; s->entries points to it */
	bool shut;              /* shutdown() was called: accept fails */
	uint64_t netns;         /* cookie of its network namespace; 0: not asked for yet */
	int backlog;
	uint32_t turn, pair_turn; /* where the next accept begins, among workers and among programs */
};

static inline struct listener *listener_of(const struct sock *s)
{
	return (struct listener *)s->entries;
}

/* The cookie of the listener's network namespace. */
static inline uint64_t listener_netns(struct sock *s)
{
	if (!listener_of(s)->netns)
		listener_of(s)->netns = sock_netns(sock_fd(s));
	return listener_of(s)->netns;
}

#endif
