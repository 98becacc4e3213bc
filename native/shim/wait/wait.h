/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * How to wait: one policy for epoll_wait, poll, select and every blocking call. Look, yield the CPU every few looks, and
 * only after the spinning budget declare the event queue asleep, look again, and block in the kernel, together with the
 * control sockets of all attachments. The budget is at most spin_us and follows its own history: where looking has not paid it
 * goes down to a single yield. On the CPU of a worker that is awake, or that we have just woken, nobody spins: it is that
 * worker we would wait for.
 *
 *	wait_begin(&w, ...);
 *	while (!look())
 *		switch (wait_next(&w)) ...      WAIT_SLEEP: eventq_declare, look again, wait_block, eventq_retract
 *	wait_end(&w, found);
 */
#ifndef SHIM_WAIT_H
#define SHIM_WAIT_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct sock;

/* What was learned of one waiter: an epoll set, or a thread. Zeroed = nothing known yet. */
struct spin {
	uint32_t budget_ns;
	bool started;
};

struct wait {
	struct spin *spin;
	uint32_t queue; /* event queue to sleep on */
	uint32_t looks;
	uint64_t now;            /* CLOCK_MONOTONIC as last read */
	uint64_t spin_from;      /* the spinning began */
	uint64_t deadline;       /* UINT64_MAX: none */
	uint64_t kernel_looked;  /* kernel descriptors were last looked at */
	uint64_t slept_ns;       /* first sleep; 0 = none yet */
	bool deaf;               /* not all that is waited for can ring: sleep only briefly */
	const sigset_t *sigmask; /* while asleep; NULL = unchanged */
	/* As inside.h has them: when this wait began, and of a wait that a handler of the program is in. */
	uint32_t handled, interrupted, outer_queue;
	const sigset_t *outer_mask;
};

enum wait_next {
	WAIT_LOOK,   /* look again */
	WAIT_KERNEL, /* look again, at kernel descriptors too */
	WAIT_SLEEP,
	WAIT_TIMEOUT
};

/* Kernel descriptors are looked at this often while the stack keeps us busy. */
#define WAIT_KERNEL_NS 75000ull

/* timeout_ns < 0: for ever. */
void wait_begin(struct wait *w, struct spin *spin, uint32_t queue, int64_t timeout_ns, const sigset_t *sigmask);

/* After a look that found nothing. */
enum wait_next wait_next(struct wait *w);

/*
 * Blocks until the queue is rung, one of `fds` is ready, an attachment dies, a signal comes or the deadline passes; then restores what
 * attachments need it. The caller has declared the queue asleep and looked again. 0 with fds[].revents set, or -EINTR.
 */
int wait_block(struct wait *w, struct pollfd *fds, uint32_t count);

/* The wait is over; teaches the budget. */
void wait_end(struct wait *w, bool found);

/*
 * Waits in a blocking call until ready(s) or the time is over. No locks held, a reference on s held. A kernel_fd >= 0 counts
 * as ready when it is readable. 0, -EAGAIN (time over) or -EINTR, the latter as the kernel would: not if the handler asks for
 * restarts (inside.h), unless there is a time limit. A thread that is cancelled in here lets go of the caller's reference.
 */
int wait_for(struct sock *s, bool (*ready)(struct sock *s), int kernel_fd, int64_t timeout_ns);

/*
 * For calls that find what they look for, or do not wait: now and then looks whether all peers live, so that a program which
 * is never idle notices, too.
 */
void wait_skipped(void);

/* This thread's history, for poll and select. */
struct spin *wait_thread_spin(void);

#endif
