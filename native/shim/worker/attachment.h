/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * An attachment: this process attached to one peer that holds the other ends of its sockets. The peer is a worker, or another
 * program on this host (a pair); both have bells both ways, an interest map, memory with socket entries, and control sockets
 * whose EOF is a death. Stream code knows no more of a peer than what is here.
 *
 * Attachments are never freed, only reused for the next attachment, and their mappings are replaced in place: a thread that
 * still holds a pointer sees dead sockets, not unmapped memory.
 */
#ifndef SHIM_ATTACHMENT_H
#define SHIM_ATTACHMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/bell.h>
#include <gazelle/channel.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "core/lock.h"

struct pair;
struct sock;

#define ATTACHMENTS_MAX (GZ_WORKERS_MAX + 64u) /* slots: workers by their index in the group, then pairs */

struct attachment {
	/* hot */
	struct gz_channel *channel; /* NULL: a pair, or child of a fork that has not claimed its sockets yet */
	struct pair *pair;          /* the peer is another program (pair.c); NULL: a worker */
	struct gz_arena *arena;     /* or, of a pair, its struct gz_pair */
	const struct gz_worker_page *page;
	int wake_fd; /* control_fd under a number of its own that is never given up: a late wake meets no stranger's file */
	_Atomic uint32_t woken; /* the worker's sleep it was last woken from, by us: one message is enough */
	_Atomic bool dead;
	/* the rest */
	int control_fd; /* a worker's; pairs have member sockets */
	uint32_t slot;  /* index of the worker in the group */
	uint32_t queue_id;
	uint64_t arena_size, blocks_from;
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

void attachment_wake(struct attachment *a, uint32_t sleep);

/* pair.h */
void pair_ring(struct attachment *a, uint32_t n);
struct gz_bell *pair_bell(struct attachment *a, uint32_t queue);
void pair_interest(struct attachment *a, uint32_t n, uint32_t queue, bool on);
uint64_t pair_interested(struct attachment *a, uint32_t n);

/* False: the child of a fork has not claimed it yet. */
static inline bool attachment_is_open(const struct attachment *a)
{
	return a->channel || a->pair;
}

/* Socket n changed: tells the worker. After the change was published; the fence pairs with the worker's before it sleeps. */
static inline void attachment_ring(struct attachment *a, uint32_t n)
{
	uint32_t sleep;

	gz_bell_ring(&a->channel->to_worker, n);
	gz_fence();
	sleep = gz_load(&a->page->asleep);
	if (__builtin_expect(sleep && sleep != gz_load(&a->woken), 0))
		attachment_wake(a, sleep);
}

/* NULL: this queue has no say in that pair. */
static inline struct gz_bell *attachment_bell(struct attachment *a, uint32_t queue)
{
	return a->pair ? pair_bell(a, queue) : &a->channel->to_app[queue];
}

/* Queue wants to hear of socket n from now on. The caller looks at the level after this, for what came before. */
static inline void attachment_interest(struct attachment *a, uint32_t n, uint32_t queue)
{
	if (a->pair)
		pair_interest(a, n, queue, true);
	else
		gz_or(&a->channel->interest[n], 1ull << queue);
	gz_fence(); /* pairs with the worker's between changing a level and reading the interest */
}

static inline void attachment_no_interest(struct attachment *a, uint32_t n, uint32_t queue)
{
	if (a->pair)
		pair_interest(a, n, queue, false);
	else
		gz_and(&a->channel->interest[n], ~(1ull << queue));
}

/* Which of our queues want to hear of socket n. */
static inline uint64_t attachment_interested(struct attachment *a, uint32_t n)
{
	return a->pair ? pair_interested(a, n) : gz_load(&a->channel->interest[n]);
}

/* A free socket number, 0 if the peer grants none within a moment. Enters `sock` as its holder. */
uint32_t attachment_take_number(struct attachment *a, struct sock *sock);

/* Enters a socket under a number that came from an accept queue, or with a fork. */
void attachment_hold(struct attachment *a, uint32_t n, struct sock *sock);

/* The process lets go of number n. */
void attachment_let_go(struct attachment *a, uint32_t n);

/*
 * Shows the peer the kernel socket that has the port which the next request with number n asks for. 0 or -errno. Before attachment_post,
 * and not by the child of a fork before its claim.
 */
int attachment_vouch(struct attachment *a, uint32_t n, int fd);

/* Posts a request and rings for it. 0, or -ECONNRESET if the peer died meanwhile. */
int attachment_post(struct attachment *a, const struct gz_request *request);

/* Waits until the peer has carried out every request posted so far. a->post held. */
void attachment_settle(struct attachment *a);

/* Waits until the peer has carried out what this thread has posted, but not for long: one that is stopped holds nobody up. */
void attachment_await(struct attachment *a);

/* Makes sure the peer can wake this queue. */
void attachment_announce(struct attachment *a, uint32_t queue);

/* True if it can: a sleep on this queue need not be short for this attachment. */
bool attachment_hears(struct attachment *a, uint32_t queue);

/* The entry of socket n. */
static inline struct gz_sock *attachment_sock(struct attachment *a, uint32_t n)
{
	return &a->arena->sock[n % GZ_SOCKS_MAX];
}

/* Memory of a packed block, NULL if it does not lie in the arena: the other side is mistaken, or hostile. */
uint8_t *attachment_block(struct attachment *a, uint32_t block);

/* Every live attachment, or only those to workers; i is the slot. Pointers stay good, see above. */
#define ATTACHMENT_EACH(a, i)                                                                              \
	for (uint32_t i = 0; i < shim.attachments_end; i = i + 1 == shim.workers ? GZ_WORKERS_MAX : i + 1) \
		for (struct attachment *a = gz_load_acquire(&shim.attachments[i]); a; a = NULL)
#define WORKER_EACH(a, i)                           \
	for (uint32_t i = 0; i < shim.workers; i++) \
		for (struct attachment *a = gz_load_acquire(&shim.attachments[i]); a; a = NULL)

#endif
