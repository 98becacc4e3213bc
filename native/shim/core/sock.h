/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A TCP socket of the program. It begins FRESH: a kernel socket we remember. listen() or connect() decide its path: it
 * becomes a LISTENER or a STREAM of the stack, or is forgotten and the kernel's alone. Accepted sockets begin as STREAM.
 * The kernel descriptor under it stays: it keeps the number, the limits and (for FRESH and LISTENER) the port.
 *
 * Lives in type-stable memory: a look-up in the descriptor table may race with close(), so every user takes a lock of the
 * socket and looks again (sock_enter_*). References: one per descriptor and one per thread that waits in it; the last one
 * lets go of the connection, as the kernel does.
 */
#ifndef SHIM_SOCK_H
#define SHIM_SOCK_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/fifo.h>
#include <gazelle/kernel_reason.h>

#include "core/fdtable.h"
#include "core/attachment.h"
#include "core/lock.h"
#include "core/refs.h"
#include "core/options.h"
#include "core/route.h"
#include "core/shim.h"

struct entries;
struct item;

enum sock_kind { KIND_FRESH = 0, KIND_LISTENER = 1, KIND_STREAM = 2, KIND_DGRAM = 3, SOCK_KINDS };

/* What a kind of socket does. */
struct sock_ops {
	/*
	 * What poll() would say of it now, EPOLL* bits, of the stack's side alone. `want`: if EPOLLOUT is in it and there is no
	 * room, the peer is asked to ring when there is, so a level that is missing now is not missed later. Any thread, no locks.
	 */
	uint32_t (*level)(struct sock *s, uint32_t want);
	/* Moves with each byte, connection or datagram that arrives, which is an edge. */
	uint32_t (*received)(struct sock *s);
	/* gz_stamp() of when it became ready; anything if it is not. */
	uint32_t (*since)(struct sock *s);
	/* This event queue wants to hear of changes, or no longer. */
	void (*interest)(struct sock *s, uint32_t queue, bool on);
	/* An option was set; NULL: nobody else need know. No locks held. */
	void (*option_changed)(struct sock *s, enum option option);
	/* The last descriptor was closed, but s is there still: waits if the program wants that; NULL: never. No locks held. */
	void (*linger)(struct sock *s);
	/* The last reference is gone. Both locks of s held. */
	void (*close)(struct sock *s);
};

extern const struct sock_ops *const sock_ops[SOCK_KINDS]; /* parts.c; NULL: FRESH ones, the kernel's until now */

struct sock {
	struct lock rx, tx;    /* readers and accepters; writers and connecters; both to change kind */
	_Atomic uint32_t refs; /* ended under both */
	_Atomic uint32_t kind; /* enum sock_kind; set last */
	_Atomic bool nonblock; /* O_NONBLOCK as the program sees it; a STREAM's is GZ_APP_NONBLOCK, see sock_nonblock() */
	_Atomic bool error_taken; /* the connection's error was reported to the program once */
	/* STREAM; set before kind, and changed only by a connect() that follows a failed one */
	uint32_t n; /* its number at the peer */
	struct attachment *attachment;
	struct gz_end *me, *peer; /* both in the entry: what we write, what the peer writes */
	struct gz_sock *shared;
	uint8_t *rx_mem, *tx_mem; /* blocks as last seen, and where they are; rx: under rx, tx: under tx */
	uint32_t rx_block, rx_size;
	uint32_t tx_block, tx_size;
	uint32_t grow_refused;      /* size of the tx block that could not grow */
	uint32_t born;              /* shim.forks then: another process may read from it too if that has changed */
	_Atomic uint32_t nospace;   /* counts writes that found no room: an edge follows when there is */
	_Atomic bool broken;        /* STREAM of a pair: it has written to a peer that is closed */
	uint32_t traced;            /* the GZ_AUX_TRACE seen last; under rx */
	_Atomic bool trace_open;    /* its answer is to be stamped, too */
	_Atomic uint32_t peek_want; /* bytes a reader wants to see before it peeks */
	bool told_connected;        /* a connect() has returned 0 */
	bool told_refused;          /* a connect() has returned its failure: the socket counts as a fresh one again */
	/* all kinds */
	uint8_t family; /* AF_INET or AF_INET6, as the program made it */
	bool template;  /* its descriptor is a duplicate of the template: it has no kernel socket of its own */
	bool datagram;  /* UDP: FRESH or DGRAM (dgram.c) */
	bool bound;     /* FRESH, LISTENER: bind() was called; `local` says where */
	int fd; /* LISTENER, DGRAM: the descriptor it was made under; it may have others by now, see sock_fd() */
	struct endpoint local;
	struct gz_name name; /* STREAM of a pair: as it was when it was made; the other program can write what is shared */
	struct item *items; /* epoll sets it is in; shim.items */
	struct options options;
	struct entries *entries; /* LISTENER, DGRAM: the socket at the workers (worker/entries.h) */
	struct sock *next;       /* free list, or shim.listeners */
};

/* A blank one of kind FRESH, with one reference, that no descriptor stands for yet; NULL: no memory. */
struct sock *sock_new(int family);

/* Gives back one that no other thread could find. */
void sock_free(struct sock *s);

/* socket() for a TCP socket that may become accelerated. A descriptor, or -errno. */
int sock_open(int family, int type, int protocol);

/* The same of a kernel's TCP socket that nothing is known of: made by another program, and inherited or passed. NULL: it is none. */
struct sock *sock_find_out(int fd);

/*
 * A STREAM on number n of the attachment, entered under a duplicate of the template: an accepted connection. The caller has made
 * `fd` and owns n. `flags`: SOCK_NONBLOCK. NULL: no memory.
 */
struct sock *sock_adopt(struct attachment *a, uint32_t n, int family, int flags);

/* A duplicate (flags: 0 or O_CLOEXEC) of the unconnected kernel socket that stands under accepted ones; or -errno. */
int sock_template(int family, int flags);

/* A descriptor that stands for s, -1 if the last one is just being closed. */
int sock_fd(struct sock *s);

/* The cookie of a socket's network namespace; 0: the kernel does not tell. */
uint64_t sock_netns(int fd);

/* True if its IPV6_V6ONLY is set. */
bool sock_v6only(const struct sock *s, int fd);

/* A kernel socket on which options of accepted sockets are checked; or -errno. Not to be closed. */
int sock_scratch(int family);

/* Points s at entry n of the attachment. Both locks held, or s not public yet. */
void sock_attach(struct sock *s, struct attachment *a, uint32_t n);

/* The stack will not serve this descriptor after all: the kernel does, for that reason. No locks held. */
void sock_to_kernel(struct sock *s, int fd, enum gz_kernel_reason reason);

static inline void sock_get(struct sock *s)
{
	refs_get(&s->refs);
}

/* A descriptor or a waiter lets go. No locks held. */
void sock_put(struct sock *s);

/* The same for a thread that uses it for a while: it is not cancelled before it has let go, but where it waits (wait_for). */
static inline void sock_hold(struct sock *s)
{
	inside_wait_begins();
	sock_get(s);
}

static inline void sock_unhold(struct sock *s)
{
	sock_put(s);
	inside_wait_ends();
}

/* What becomes of a socket whose descriptors are closed. */
extern const struct fd_ops sock_fd_ops;

/* fork.c, in the child: locks and waiters of other threads are gone. */
void sock_after_fork(void);

static inline enum sock_kind sock_kind(const struct sock *s)
{
	return (enum sock_kind)gz_load_acquire(&s->kind); /* pairs with the release that made it so: the rest is set */
}

/* Not of a FRESH one. */
static inline const struct sock_ops *sock_ops_of(const struct sock *s)
{
	return sock_ops[sock_kind(s)];
}

/* What the connection of a STREAM is called. */
static inline const struct gz_name *sock_name(const struct sock *s)
{
	return attachment_is_program(s->attachment) ? &s->name : &s->shared->name;
}

/* O_NONBLOCK belongs to the file, not to the process: of a connection it is where all that hold it see it. */
static inline bool sock_nonblock(const struct sock *s)
{
	return sock_kind(s) == KIND_STREAM ? gz_load(&s->me->flags) & GZ_APP_NONBLOCK : gz_load(&s->nonblock);
}

/* A lock of s held. */
void sock_set_nonblock(struct sock *s, bool on);

/* Claims the attachment in the child of a fork, on first use. */
static inline void sock_ready(struct sock *s)
{
	if (__builtin_expect(!attachment_is_open(s->attachment), 0))
		(void)s->attachment->ops->claim(
			s->attachment); /* an attachment that cannot be claimed is dead, which the caller sees */
}

/*
 * The socket of this descriptor with a lock held, or NULL if the kernel serves it. While the lock is held the descriptor
 * stays this socket's.
 */
static inline struct sock *sock_enter(int fd, bool tx)
{
	for (;;) {
		struct sock *s = fd_sock(fd);

		if (!s)
			return NULL;
		lock_take(tx ? &s->tx : &s->rx);
		if (__builtin_expect(fd_sock(fd) == s, 1))
			return s;
		lock_give(tx ? &s->tx : &s->rx);
	}
}

/* The same for streams only; everything else is for the kernel to answer. */
static inline struct sock *sock_enter_stream(int fd, bool tx)
{
	struct sock *s = sock_enter(fd, tx);

	if (!s)
		return NULL;
	if (__builtin_expect(sock_kind(s) == KIND_STREAM, 1)) {
		sock_ready(s);
		return s;
	}
	lock_give(tx ? &s->tx : &s->rx);
	return NULL;
}

/* GZ_WORKER_* levels of the peer's end. The acquire pairs with its release: bytes before a FIN, the error before DEAD. */
static inline uint32_t sock_peer_flags(const struct sock *s)
{
	uint32_t flags = gz_load_acquire(&s->peer->flags);

	if (__builtin_expect(gz_load(&s->attachment->dead), 0) && !(flags & GZ_WORKER_FIN_ACKED))
		flags |= s->attachment->ops->orphan_flags(s);
	return __builtin_expect(gz_load(&s->broken), 0) ? flags | GZ_WORKER_DEAD : flags;
}

/* The errno the connection ended with, 0 = none or reported already. Does not take it. */
int sock_error(const struct sock *s);

/* Takes it: SO_ERROR, or the first read or write that reports it. Positive errno. */
int sock_take_error(struct sock *s);

/* Tells the peer that this socket changed. */
static inline void sock_ring(struct sock *s)
{
	attachment_ring(s->attachment, s->n);
}

#endif
