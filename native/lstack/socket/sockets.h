/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What all sockets of a worker have in common. */
#ifndef LSTACK_SOCKETS_H
#define LSTACK_SOCKETS_H

#include <stdint.h>

struct arena;
struct conn;
struct listener;
struct protocol_stack;

/* What sockets ask of the part that knows their users, the attached processes. */
struct socket_users {
	/* Socket n of this arena changed its level: rings the processes that hold it and wait for it. */
	void (*notify)(struct arena *arena, uint32_t n);
	/* A process of this arena wrote what cannot be: all of them are detached at the end of the turn. */
	void (*hostile)(struct arena *arena, const char *why);
	/* The pid of a process that holds socket n; 0: none does. */
	uint32_t (*holder)(const struct arena *arena, uint32_t n);
};

struct sockets {
	struct protocol_stack *stack;
	const struct socket_users *users;
	struct conn *retry;    /* lwIP had no memory for them: again next turn */
	struct conn *finished; /* to be freed once the turn's frames are out */
	struct listener *listeners;
	struct conn *orphans, *orphans_last; /* orphan.h: the one that has waited longest first */
	uint64_t netns;                      /* cookie of the network namespace the worker is in */
	uint64_t bindings;                   /* of datagram sockets so far */
};

#endif
