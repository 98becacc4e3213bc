/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "worker/attach.h"
#include "core/confined.h"
#include "core/eventq.h"
#include "core/attachment.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"
#include "wait/wait.h"

#define SPIN_DEFAULT_US 100u
#define LOOKS_PER_YIELD 16u
#define CHECK_NS 1000000ull        /* control sockets, while we are too busy to sleep */
#define RETRY_SLEEP_NS 20000000ull /* while a worker is missing and due to be looked for nobody sleeps longer */
#define FEW_FDS 128u               /* more need an allocator, where a signal handler may not go */
#define SKIPS_PER_CLOCK 64u

static __thread struct spin thread_spin;

void wait_skipped(void)
{
	static __thread uint32_t skips;

	if (++skips % SKIPS_PER_CLOCK || confined)
		return;
	if (now_ns() - gz_load(&shim.checked_ns) > CHECK_NS)
		attachment_check_all();
	attach_retry();
}

struct spin *wait_thread_spin(void)
{
	return &thread_spin;
}

static uint32_t most_ns(void)
{
	uint32_t us = shim.group ? shim.group->spin_us : 0;

	return (us ? us : SPIN_DEFAULT_US) * 1000u;
}

void wait_begin(struct wait *w, struct spin *spin, uint32_t queue, int64_t timeout_ns, const sigset_t *sigmask)
{
	inside_wait_begins();
	if (!spin->started) {
		spin->started = true;
		spin->budget_ns = most_ns();
	}
	w->spin = spin;
	w->queue = queue;
	w->looks = 0;
	w->now = w->spin_from = w->kernel_looked = now_ns();
	w->deadline = timeout_ns < 0 ? UINT64_MAX : w->now + (uint64_t)timeout_ns;
	w->slept_ns = 0;
	w->deaf = queue == EVENTQ_SHARED;
	w->sigmask = sigmask;
	w->outer_queue = inside.queue;
	w->handled = w->outer_queue ? inside.handled : 0;
	w->interrupted = w->outer_queue ? inside.interrupted : 0;
	w->outer_mask = inside.mask;
	inside.mask = sigmask;
	inside.queue = queue + 1;
}

/*
 * True if a worker bound to the CPU we are on is awake, or was woken by us: it has something to do and does it when we leave. A
 * yield would not do, it gives the CPU to the thread that has had less of it until now. Tells all workers where we look from, so that they
 * do the same.
 */
static bool worker_waits_here(uint32_t queue)
{
	int cpu = sched_getcpu();
	bool waits = false;

	WORKER_EACH(a, i)
	{
		struct gz_bell *bell = queue != EVENTQ_SHARED ? attachment_bell(a, queue) : NULL;
		uint32_t asleep;

		if (!bell || gz_load(&a->dead))
			continue;
		if (gz_load(&bell->cpu) != (uint32_t)cpu + 1)
			gz_store(&bell->cpu, (uint32_t)cpu + 1);
		if (shim.group->workers[a->slot].cpu != cpu)
			continue;
		asleep = gz_load(&a->page->asleep);
		waits |= !asleep || asleep == gz_load(&a->woken);
	}
	return waits;
}

enum wait_next wait_next(struct wait *w)
{
	if (w->looks++ % LOOKS_PER_YIELD) {
		gz_pause();
		return WAIT_LOOK;
	}
	if (confined || worker_waits_here(w->queue))
		return w->now >= w->deadline ? WAIT_TIMEOUT : WAIT_SLEEP;
	if (w->looks == 1)
		return WAIT_LOOK;
	/* A hand-over where the peer shares our CPU, and nearly free where it does not. */
	sched_yield();
	w->now = now_ns();
	if (w->now >= w->deadline)
		return WAIT_TIMEOUT;
	if (w->now - w->spin_from >= w->spin->budget_ns)
		return WAIT_SLEEP;
	if (w->now - w->kernel_looked < WAIT_KERNEL_NS)
		return WAIT_LOOK;
	w->kernel_looked = w->now;
	if (w->now - gz_load(&shim.checked_ns) > CHECK_NS)
		attachment_check_all();
	return WAIT_KERNEL;
}

/* How long this sleep may last: not past the deadline, and not long while something must be looked after. */
static const struct timespec *sleep_time(const struct wait *w, bool deaf, struct timespec *ts)
{
	uint64_t ns = w->deadline == UINT64_MAX ? UINT64_MAX : w->deadline > w->now ? w->deadline - w->now : 0;

	if (gz_load(&shim.missing)) {
		uint64_t retry = gz_load(&shim.retry_ns), until = retry > w->now ? retry - w->now : 0;

		until = until > RETRY_SLEEP_NS ? until : RETRY_SLEEP_NS;
		ns = ns < until ? ns : until;
	}
	if (deaf && ns > EVENTQ_SHARED_SLEEP_NS)
		ns = EVENTQ_SHARED_SLEEP_NS;
	if (ns == UINT64_MAX)
		return NULL;
	ts->tv_sec = (time_t)(ns / 1000000000ull);
	ts->tv_nsec = (long)(ns % 1000000000ull);
	return ts;
}

int wait_block(struct wait *w, struct pollfd *fds, uint32_t count)
{
	struct pollfd few[FEW_FDS], *all = few;
	struct timespec ts;
	uint32_t own = 0, need = 1 + shim.workers + gz_load(&shim.members) + count;
	bool hung_up = false, deaf = w->deaf;
	int err = 0, got, kept = errno;

	if (need > FEW_FDS) {
		all = malloc(need * sizeof(*all));
		if (!all)
			return 0; /* then it looks again, without a sleep */
	}
	all[own++] = (struct pollfd){ .fd = eventq_fd(w->queue), .events = POLLIN };
	ATTACHMENT_EACH(a, i)
	{
		if (own == need - count)
			break; /* attachments that came just now are looked after next time */
		deaf |= !a->ops->hears(a, w->queue);
		own += a->ops->poll(a, all + own, need - count - own);
	}
	memcpy(all + own, fds, count * sizeof(*fds));
	w->now = now_ns();
	const struct timespec *timeout = sleep_time(w, deaf || all[0].fd < 0, &ts);
	uint64_t from = w->now;
	if (inside.handled != w->handled) /* one that comes from now on rings our queue */
		ts.tv_sec = ts.tv_nsec = 0, timeout = &ts;
	got = REAL(ppoll)(all, own + count, timeout, w->sigmask);
	if ((got < 0 && errno == EINTR) || inside.handled != w->handled)
		err = -EINTR;
	w->now = w->spin_from = w->kernel_looked = now_ns();
	if (!w->slept_ns)
		w->slept_ns = w->now - from + 1;
	for (uint32_t i = 0; i < count; i++)
		fds[i].revents = got > 0 ? all[own + i].revents : 0;
	if (got > 0 && all[0].revents)
		eventq_drain(w->queue);
	for (uint32_t i = 1; i < own && got > 0; i++)
		hung_up |= all[i].revents != 0;
	if (all != few)
		free(all);
	if (hung_up)
		attachment_check_all();
	if (!confined)
		attach_retry();
	errno = kept; /* a call that finds what it waited for leaves it alone */
	return err;
}

void wait_end(struct wait *w, bool found)
{
	uint32_t most = most_ns(), budget = w->spin->budget_ns;

	if (w->slept_ns > 3ull * most || (w->slept_ns && !found))
		budget -= budget / 4 + (budget < 1000 ? budget : 0);
	else if (w->slept_ns)
		budget += most / 4; /* had we looked a little longer */
	else if (found && w->looks > LOOKS_PER_YIELD)
		budget += most / 8;
	w->spin->budget_ns = budget < most ? budget : most;
	inside.queue = w->outer_queue;
	inside.mask = w->outer_mask;
	inside_wait_ends();
}

static void set_interest(struct sock *s, uint32_t queue, bool on)
{
	sock_ops_of(s)->interest(s, queue, on);
}

/* What a thread that is cancelled in its sleep leaves. */
struct sleeper {
	struct sock *s;
	uint32_t queue;
	int err; /* here, not in a register that is lost */
};

static void cancelled(void *arg)
{
	struct sleeper *sleeper = arg;

	eventq_retract(sleeper->queue);
	set_interest(sleeper->s, sleeper->queue, false);
	sock_put(sleeper->s); /* the caller's: else the connection never ends */
}

/* Sleeps unless it is ready. 0, or -EINTR if the call must not go on; `limited`: one with a time limit never does. */
static int sleep_for(struct sock *s, bool (*ready)(struct sock *s), struct wait *w, struct pollfd *kernel, bool limited)
{
	struct sleeper sleeper = { .s = s, .queue = w->queue };

	set_interest(s, w->queue, true);
	eventq_declare(w->queue);
	pthread_cleanup_push(cancelled, &sleeper);
	if (!ready(s))
		sleeper.err = wait_block(w, kernel, 1);
	pthread_cleanup_pop(0);
	eventq_retract(w->queue);
	set_interest(s, w->queue, false);
	if (!sleeper.err || kernel->revents)
		return 0;
	if (limited || inside.interrupted != w->interrupted)
		return -EINTR;
	if (inside.handled == w->handled)
		return inside_unknown_interrupts() ? -EINTR : 0;
	w->handled = inside.handled; /* all of them want it to go on */
	return 0;
}

int wait_for(struct sock *s, bool (*ready)(struct sock *s), int kernel_fd, int64_t timeout_ns)
{
	struct pollfd kernel = { .fd = kernel_fd, .events = POLLIN };
	struct timespec at_once = { 0 };
	uint32_t queue = eventq_mine();
	struct wait w;
	int err = 0;

	wait_begin(&w, &thread_spin, queue, timeout_ns, NULL);
	while (!ready(s)) {
		enum wait_next next = wait_next(&w);

		if (next == WAIT_TIMEOUT) {
			err = -EAGAIN;
			break;
		}
		if (next == WAIT_KERNEL && kernel_fd >= 0 && UNCANCELLED(ppoll, &kernel, 1, &at_once, NULL, 0) > 0)
			break;
		if (next != WAIT_SLEEP)
			continue;
		err = sleep_for(s, ready, &w, &kernel, timeout_ns >= 0);
		if (err || kernel.revents)
			break;
	}
	wait_end(&w, !err);
	return err;
}
