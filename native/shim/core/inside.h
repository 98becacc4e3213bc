/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What must not happen to a thread while it holds a lock of the library. A handler of the program that used a socket then would
 * find what it half changed, or wait for itself: a signal that comes meanwhile waits until the last lock is given back. And a
 * thread that is cancelled would leave the lock taken for ever: one that may be cancelled anywhere may not be in here.
 *
 * Signals cost nothing to hold back: the kernel calls a handler of ours, which calls the program's, or, in here, blocks all
 * signals of the thread as it returns and notes this one, which is sent again, with all it had, once the thread is out.
 */
#ifndef SHIM_INSIDE_H
#define SHIM_INSIDE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct inside {
	volatile uint32_t locks; /* held by this thread, and what counts as one */
	volatile bool late;      /* a signal has come meanwhile */
	bool anywhere;           /* the program has made it PTHREAD_CANCEL_ASYNCHRONOUS */
	uint32_t waits;          /* it waits, and cleans up if it is cancelled at the point where it may be */
	/* Handlers that have run since it began to wait, and those of them that make a call fail. */
	volatile uint32_t handled, interrupted;
	volatile uint32_t queue; /* where it sleeps, + 1; 0 = it does not */
	const sigset_t *volatile mask; /* signals that are not to come while it does, and so are none of the call's; NULL: no such */
};

extern __thread struct inside inside;

/* Wakes that queue, from a signal handler; parts.c. */
extern void (*const inside_wake)(uint32_t queue);

/* The slow halves of the four below. */
void inside_defer_cancel(void);
void inside_is_left(void);

static inline void inside_enter(void)
{
	if (__builtin_expect(inside.anywhere, 0))
		inside_defer_cancel();
	inside.locks++;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void inside_leave(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	inside.locks--;
	if (__builtin_expect(inside.late || inside.anywhere, 0))
		inside_is_left();
}

/*
 * Around all that a cancelled thread must clean up. Signals come as ever, and are counted: a call that waits is interrupted
 * by one also while it does not sleep, or it would go to sleep for ever after that; the kernel's cannot be met there.
 */
static inline void inside_wait_begins(void)
{
	if (__builtin_expect(inside.anywhere, 0))
		inside_defer_cancel();
	if (!inside.waits++)
		inside.handled = inside.interrupted = 0;
}

static inline void inside_wait_ends(void)
{
	inside.waits--;
	if (__builtin_expect(inside.anywhere, 0))
		inside_is_left();
}

/*
 * exec.c: the locks are kept until the exec, but a signal that waits for them would stay blocked in the new program. Handlers
 * may run in between; returns what inside_shut() wants if there is no exec after all.
 */
uint32_t inside_open(void);
void inside_shut(uint32_t locks);

/* fork.c, in the child, with one lock held: those of others are gone, and so are signals that waited. */
void inside_after_fork(void);

/*
 * ppoll() has failed with EINTR, and no handler we know of has run: true if one that another way was found to set may make
 * a call fail.
 */
bool inside_unknown_interrupts(void);

/* siginterrupt() as the program means it. 0 or -errno. */
int inside_interrupt(int sig, bool on);

/* sigaction() as the program means it. 0 or -errno. */
int inside_action(int sig, const struct sigaction *action, struct sigaction *old);

/* pthread_setcanceltype() as the program means it. 0 or a positive errno. */
int inside_cancel_type(int type, int *old);

#endif
