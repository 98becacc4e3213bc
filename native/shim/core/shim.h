/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * liblstack.so: what an attached program has of gazelled, and its one global. A call of the program goes from api/ down; README.md in
 * each folder says what the part is for. Where to look first:
 *   api/api_*.c         the interposed functions, thin: what does the descriptor stand for?
 *   core/fdtable.c      descriptor -> socket; core/sock.c: a socket and its life; core/route.c: does stack or kernel serve it?
 *   stream/ udp/        bytes and connections; datagrams
 *   wait/wait.c         how to wait; core/eventq.c is what is waited on; epoll*.c and poll_set.c merge kernel and stack
 *   core/attachment.h   the peer of a socket: a worker (worker/) or a program of this host (samehost/)
 *   process/            forks, exec, posix_spawn, and sockets on their way to another process
 *   api/parts.c         which part serves what core/ calls without knowing it
 */
#ifndef SHIM_SHIM_H
#define SHIM_SHIM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include <gazelle/explain.h>
#include <gazelle/group_page.h>
#include <gazelle/kernel_reason.h>

#include "core/lock.h"

struct attachment;

#define ATTACHMENTS_MAX (GZ_WORKERS_MAX + 64u)

/* The one global of the library. Everything here is of this process; a child of fork repairs it (fork.c). */
struct shim {
	struct lock lock;                  /* attachments, listeners */
	struct lock items;                 /* which socket is in which epoll set */
	const struct gz_group_page *group; /* read-only mapping; NULL until a program asks for its first socket */
	uid_t group_uid;                   /* the owner of that file, who starts the workers */
	bool disabled;                     /* no $GAZELLED_GROUP, or a page we do not understand */
	bool fallback_fail;                /* --fallback fail: no stack, no socket */
	bool attached;    /* some worker was ours once: one that is away is waited for, not done without */
	bool complained;  /* the once-only word on stderr is out */
	uint32_t workers; /* of our group */
	uint32_t queue_id[GZ_WORKERS_MAX]; /* by index in the group */
	uint32_t role[GZ_WORKERS_MAX];
	_Atomic(struct attachment *) attachments[ATTACHMENTS_MAX]; /* workers by their index in the group, then programs; NULL: none */
	uint32_t attachments_end;                                  /* slots beyond are unused */
	uint64_t attachments_serial;                               /* of the youngest attachment */
	_Atomic uint32_t members;                                  /* of all pairs */
	_Atomic uint32_t missing;    /* workers of the group we are not attached to, once we are to any */
	int attach_error;            /* why the last attempt to attach failed, a positive errno */
	char refusal[64];            /* ... and in the worker's words, if it was refused */
	_Atomic uint64_t retry_ns;   /* when to try them again */
	_Atomic uint32_t tries;      /* in vain, since one was lost or came back */
	_Atomic uint64_t checked_ns; /* when the control sockets were last looked at */
	_Atomic uint32_t turn;       /* round robin of outgoing connections */
	_Atomic bool passes;         /* group_expect_passing() was called */
	_Atomic uint32_t forks;      /* forks of this process so far, its ancestors' included */
	_Atomic uint32_t kernel[GZ_KERNEL_REASONS]; /* sockets on the kernel path; copied to a worker */
	_Atomic uint32_t paired;                    /* connections with programs of this host; copied to a worker */
	struct gz_explain *explain;                 /* `run --explain` counts there; NULL: nobody does */
	int template_fd[2]; /* IPv4, IPv6: accepted sockets are duplicates of it; 0 = none yet */
	int scratch_fd[2];  /* where options of accepted sockets are checked by the kernel; 0 = none yet */
};

extern struct shim shim;

/*
 * shim.lock. What is done under it waits now and then, and calls into the C library at will: a thread that holds it is not
 * cancelled, wherever it may be.
 */
void shim_lock(void);
bool shim_try_lock(void);
void shim_unlock(void);

/* True once attached; no side effects. */
static inline bool shim_active(void)
{
	return shim.group != NULL;
}

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* A socket has become one of the stack's: for `gazelled run --explain`, once for each. */
void shim_explain(enum gz_explained kind);

/* A worker does not take this program: kept for the word on stderr, and told to `gazelled run --explain`. */
void shim_refused(const char *why);

/* The once-only word on stderr; `so`: what follows from it, NULL: the program has no worker. */
void shim_complain(const char *what, const char *detail, const char *so);

#endif
