/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A link: this process attached to one peer that holds the other ends of its sockets. The peer is a worker, or another
 * program on this host (a pair); both have bells both ways, an interest map, memory with socket entries, and control sockets
 * whose EOF is a death. Stream code knows no more of a peer than what is here.
 *
 * Links are never freed, only reused for the next attachment, and their mappings are replaced in place: a thread that
 * still holds a pointer sees dead sockets, not unmapped memory.
 */
#ifndef SHIM_LINK_H
#define SHIM_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gazelle/abi.h>

#include "core/lock.h"

struct pair;
struct sock;

#define SHIM_LINKS (GZ_WORKERS_MAX + 64u) /* slots: workers by their index in the group, then pairs */

struct link {
	/* hot */
	struct gz_channel *channel; /* NULL: a pair, or child of a fork that has not claimed its sockets yet */
	struct pair *pair;          /* the peer is another program (pair.c); NULL: a worker */
	struct gz_arena *arena;     /* or, of a pair, its struct gz_pair */
	const struct gz_worker_page *page;
	int wake_fd; /* control_fd under a number of its own that is never given up: a late wake meets no stranger's file */
	_Atomic uint32_t woken; /* the worker's sleep it was last woken from, by us: one message is enough */
	_Atomic bool dead;
	/* the rest */
	int control_fd; /* a worker's; pairs have legs */
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
	bool buried;                   /* dead, and its memory given back: ready for the next attachment */
	uint64_t serial;               /* differs with each attachment */
	struct link *next;             /* all that ever were */
};

void link_wake(struct link *link, uint32_t sleep);

/* pair.h */
void pair_ring(struct link *link, uint32_t n);
struct gz_bell *pair_bell(struct link *link, uint32_t queue);
void pair_interest(struct link *link, uint32_t n, uint32_t queue, bool on);
uint64_t pair_interested(struct link *link, uint32_t n);

/* False: the child of a fork has not claimed it yet. */
static inline bool link_is_open(const struct link *link)
{
	return link->channel || link->pair;
}

/* Socket n changed: tells the worker. After the change was published; the fence pairs with the worker's before it sleeps. */
static inline void link_ring(struct link *link, uint32_t n)
{
	uint32_t sleep;

	gz_bell_ring(&link->channel->to_worker, n);
	gz_fence();
	sleep = gz_load(&link->page->asleep);
	if (__builtin_expect(sleep && sleep != gz_load(&link->woken), 0))
		link_wake(link, sleep);
}

/* NULL: this queue has no say in that pair. */
static inline struct gz_bell *link_bell(struct link *link, uint32_t queue)
{
	return link->pair ? pair_bell(link, queue) : &link->channel->to_app[queue];
}

/* Queue wants to hear of socket n from now on. The caller looks at the level after this, for what came before. */
static inline void link_interest(struct link *link, uint32_t n, uint32_t queue)
{
	if (link->pair)
		pair_interest(link, n, queue, true);
	else
		gz_or(&link->channel->interest[n], 1ull << queue);
	gz_fence(); /* pairs with the worker's between changing a level and reading the interest */
}

static inline void link_no_interest(struct link *link, uint32_t n, uint32_t queue)
{
	if (link->pair)
		pair_interest(link, n, queue, false);
	else
		gz_and(&link->channel->interest[n], ~(1ull << queue));
}

/* Which of our queues want to hear of socket n. */
static inline uint64_t link_interested(struct link *link, uint32_t n)
{
	return link->pair ? pair_interested(link, n) : gz_load(&link->channel->interest[n]);
}

/* A free socket number, 0 if the peer grants none within a moment. Enters `sock` as its holder. */
uint32_t link_take_number(struct link *link, struct sock *sock);

/* Enters a socket under a number that came from an accept queue, or with a fork. */
void link_hold(struct link *link, uint32_t n, struct sock *sock);

/* The process lets go of number n. */
void link_let_go(struct link *link, uint32_t n);

/*
 * Shows the peer the kernel socket that has the port which the next request with number n asks for. 0 or -errno. Before link_post,
 * and not by the child of a fork before its claim.
 */
int link_vouch(struct link *link, uint32_t n, int fd);

/* Posts a request and rings for it. 0, or -ECONNRESET if the peer died meanwhile. */
int link_post(struct link *link, const struct gz_request *request);

/* Waits until the peer has carried out every request posted so far. link->post held. */
void link_settle(struct link *link);

/* Waits until the peer has carried out what this thread has posted, but not for long: one that is stopped holds nobody up. */
void link_await(struct link *link);

/* Makes sure the peer can wake this queue. */
void link_announce(struct link *link, uint32_t queue);

/* True if it can: a sleep on this queue need not be short for this link. */
bool link_hears(struct link *link, uint32_t queue);

/* The entry of socket n. */
static inline struct gz_sock *link_sock(struct link *link, uint32_t n)
{
	return &link->arena->sock[n % GZ_SOCKS_MAX];
}

/* Memory of a packed block, NULL if it does not lie in the arena: the other side is mistaken, or hostile. */
uint8_t *link_block(struct link *link, uint32_t block);

/* Every live link, or only those to workers; i is the slot. Pointers stay good, see above. */
#define LINK_EACH(link, i)                                                                           \
	for (uint32_t i = 0; i < shim.links_end; i = i + 1 == shim.workers ? GZ_WORKERS_MAX : i + 1) \
		for (struct link *link = gz_load_acquire(&shim.links[i]); link; link = NULL)
#define WORKER_EACH(link, i)                        \
	for (uint32_t i = 0; i < shim.workers; i++) \
		for (struct link *link = gz_load_acquire(&shim.links[i]); link; link = NULL)

#endif
