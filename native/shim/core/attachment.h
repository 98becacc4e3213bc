/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * An attachment: this process and one peer that holds the other ends of its sockets. The peer is a worker (worker/), or another
 * program of this host (samehost/). Both have bells both ways, an interest map, memory with socket entries, and control sockets
 * whose EOF means that the peer has died. What differs between the two is in struct peer_ops.
 *
 * Attachments are never freed, only reused, and their mappings are replaced in place: a thread that still holds a pointer sees
 * dead sockets, not unmapped memory.
 */
#ifndef SHIM_ATTACHMENT_H
#define SHIM_ATTACHMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gazelle/arena.h>
#include <gazelle/channel.h>
#include <gazelle/worker_page.h>

#include "core/lock.h"
#include "core/shim.h"

struct attachment;
struct pair;
struct pollfd;
struct sock;

#define ATTACHMENT_WINDOWS 256u

enum peer_kind { PEER_WORKER, PEER_PROGRAM, PEER_KINDS };

struct peer_ops {
	enum peer_kind kind;
	uint32_t numbers;   /* socket numbers are less than this */
	uint32_t block_max; /* no block is larger; 0: they grow as far as the worker lets them */

	/* The next four are the slow halves of the functions below that are called like them. */
	void (*ring)(struct attachment *a, uint32_t n);
	struct gz_bell *(*bell)(struct attachment *a, uint32_t queue);
	void (*interest)(struct attachment *a, uint32_t n, uint32_t queue, bool on);
	uint64_t (*interested)(struct attachment *a, uint32_t n);
	/* Wakes the peer from that sleep. Only peers with a channel. */
	void (*wake)(struct attachment *a, uint32_t sleep);

	/* The entry of number n as stream.c wants it, and its two ends: ours and the peer's. */
	struct gz_sock *(*entry)(struct attachment *a, uint32_t n, struct gz_end **me, struct gz_end **peer);
	/* Flags of the peer's end when the peer has died: what it had not said before. */
	uint32_t (*orphan_flags)(const struct sock *s);
	/* The process lets go of number n. Not called when the peer is dead. */
	void (*let_go)(struct attachment *a, uint32_t n);
	/* A number is held from now on (1), or no longer (-1): for counters. NULL: nobody counts. */
	void (*count)(int by);

	/* Tells the peer that fd wakes our event queue; and whether the peer knows. */
	void (*announce)(struct attachment *a, uint32_t queue, int fd);
	bool (*hears)(struct attachment *a, uint32_t queue);
	/* Adds the descriptors that a sleeper is to watch, at most `room`. Returns how many. */
	uint32_t (*poll)(struct attachment *a, struct pollfd *fds, uint32_t room);
	/* Reads what the peer says, without waiting; finds out whether it lives. shim.lock held. */
	void (*check)(struct attachment *a);
	/* The peer has died: closes what belongs to it. shim.lock held. */
	void (*lost)(struct attachment *a);
	/* In the child of a fork, on first use: takes over what the parent held. 0 or -errno; the peer is dead then. No locks held. */
	int (*claim)(struct attachment *a);
};

extern const struct peer_ops *const peer_ops[PEER_KINDS]; /* parts.c */

struct attachment {
	/* hot */
	struct gz_channel *channel; /* a worker's; NULL: a program, or a child of fork has not claimed its sockets yet */
	const struct peer_ops *ops;
	struct pair *pair;      /* what only samehost/ knows of it; NULL: a worker */
	struct gz_arena *arena; /* of a program its struct gz_pair */
	const struct gz_worker_page *page;
	int wake_fd; /* control_fd under a number of its own that is never given up: a late wake reaches no other file */
	_Atomic uint32_t woken; /* the worker's sleep it was last woken from, by us: one message is enough */
	_Atomic bool dead;
	/* the rest */
	int control_fd; /* a worker's; programs have one for each of their processes */
	uint32_t slot;  /* index of the worker in the group; programs have the slots from GZ_WORKERS_MAX on */
	uint32_t queue_id;
	uint64_t arena_size, blocks_from;              /* of its memory; what is before blocks_from is at `arena` */
	_Atomic(uint8_t *) window[ATTACHMENT_WINDOWS]; /* the rest, as far as it was used: window.h */
	int memory_fd;                                 /* for more of them; 0 or -1 = none */
	size_t channel_size, page_size;
	_Atomic uint64_t announced;    /* event queues the peer can wake */
	struct lock post;              /* request ring, stock, control socket */
	_Atomic(struct sock *) *socks; /* [GZ_SOCKS_MAX] what holds number n here */
	_Atomic uint32_t used;         /* numbers held */
	uint64_t *dropped;             /* bit n: closed before the claim; told to the worker then. NULL: none */
	bool unclaimed;                /* in a child: control_fd is the end of the parent's socketpair */
	bool unmapped;                 /* after an exec, before the claim: arena and page are but reserved */
	bool unused;                   /* dead, and its memory given back: ready for the next attachment */
	uint64_t serial;               /* differs with each attachment */
	struct attachment *next;       /* all that ever were */
};

static inline bool attachment_is_program(const struct attachment *a)
{
	return a->ops->kind == PEER_PROGRAM;
}

/* False: the child of a fork has not claimed it yet. */
static inline bool attachment_is_open(const struct attachment *a)
{
	return a->channel || attachment_is_program(a);
}

/* Socket n changed: tells the peer. After the change was published; the fence pairs with the worker's before it sleeps. */
static inline void attachment_ring(struct attachment *a, uint32_t n)
{
	uint32_t sleep;

	if (__builtin_expect(!a->channel, 0)) {
		a->ops->ring(a, n);
		return;
	}
	gz_bell_ring(&a->channel->to_worker, n);
	gz_fence();
	sleep = gz_load(&a->page->asleep);
	if (__builtin_expect(sleep && sleep != gz_load(&a->woken), 0))
		a->ops->wake(a, sleep);
}

/* What the peer rings for this event queue of ours. NULL: it does not ring for it. */
static inline struct gz_bell *attachment_bell(struct attachment *a, uint32_t queue)
{
	return __builtin_expect(a->channel != NULL, 1) ? &a->channel->to_app[queue] : a->ops->bell(a, queue);
}

/* The queue wants to hear of socket n from now on. The caller looks at the level after this, for what came before. */
static inline void attachment_interest(struct attachment *a, uint32_t n, uint32_t queue)
{
	if (__builtin_expect(a->channel != NULL, 1))
		gz_or(&a->channel->interest[n], 1ull << queue);
	else
		a->ops->interest(a, n, queue, true);
	gz_fence(); /* pairs with the worker's between changing a level and reading the interest */
}

static inline void attachment_no_interest(struct attachment *a, uint32_t n, uint32_t queue)
{
	if (__builtin_expect(a->channel != NULL, 1))
		gz_and(&a->channel->interest[n], ~(1ull << queue));
	else
		a->ops->interest(a, n, queue, false);
}

/* The queues of ours that want to hear of socket n. */
static inline uint64_t attachment_interested(struct attachment *a, uint32_t n)
{
	return __builtin_expect(a->channel != NULL, 1) ? gz_load(&a->channel->interest[n]) : a->ops->interested(a, n);
}

/* The entry of socket n at a worker. */
static inline struct gz_sock *attachment_sock(struct attachment *a, uint32_t n)
{
	return &a->arena->sock[n % GZ_SOCKS_MAX];
}

/* Enters a socket under a number. */
void attachment_hold(struct attachment *a, uint32_t n, struct sock *sock);

/* The process lets go of number n. */
void attachment_let_go(struct attachment *a, uint32_t n);

/* An attachment to fill in (NULL: no memory), and its beginning. shim.lock held. */
struct attachment *attachment_take(enum peer_kind kind);
void attachment_publish(struct attachment *a);

/* The one after it, the first after NULL, of all that ever were. shim.lock held. */
struct attachment *attachment_next(const struct attachment *a);

/* In a child that uses the stack by itself: claims what it holds at each worker, if it has not yet. No locks held. */
void attachment_claim_all(void);

/* Looks at all control sockets without waiting; the sockets of a peer that has died wake. No locks held. */
void attachment_check_all(void);

/* Every live attachment, or only those to workers; i is the slot. Pointers stay good, see above. */
#define ATTACHMENT_EACH(a, i)                                                                              \
	for (uint32_t i = 0; i < shim.attachments_end; i = i + 1 == shim.workers ? GZ_WORKERS_MAX : i + 1) \
		for (struct attachment *a = gz_load_acquire(&shim.attachments[i]); a; a = NULL)
#define WORKER_EACH(a, i)                           \
	for (uint32_t i = 0; i < shim.workers; i++) \
		for (struct attachment *a = gz_load_acquire(&shim.attachments[i]); a; a = NULL)

#endif
