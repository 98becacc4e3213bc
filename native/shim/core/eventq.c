/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gazelle/wake.h>

#include "core/eventq.h"
#include "core/confined.h"
#include "core/fdtable.h"
#include "core/attachment.h"
#include "core/real.h"
#include "core/shim.h"

/* Bit k: queue k is taken. The shared one never is. */
static _Atomic uint64_t taken = 1ull << EVENTQ_SHARED;
/*
 * Both ends stay with their number once made, so that attachments need to learn of them only once: what is slept on, and what wakes
 * it. Slots of fd_own: 0 or -1 = none.
 */
static int queue_fd[GZ_EVENT_QUEUES], wake_fd[GZ_EVENT_QUEUES];
static struct lock make;

/* How many threads sleep on a queue. Under `lock` the count and what the peers are told agree. */
static struct {
	struct lock lock;
	_Atomic uint32_t count;
} sleepers[GZ_EVENT_QUEUES];

static __thread uint32_t mine = UINT32_MAX;
static pthread_key_t ending;
static pthread_once_t once = PTHREAD_ONCE_INIT;

uint32_t eventq_take(void)
{
	uint64_t used = gz_load(&taken);

	while (~used) {
		uint32_t k = (uint32_t)__builtin_ctzll(~used);

		if (gz_cas(&taken, &used, used | 1ull << k)) {
			gz_store(&sleepers[k].count, 0); /* a thread that was cancelled in its sleep never retracted */
			return k;
		}
	}
	return EVENTQ_SHARED;
}

void eventq_give(uint32_t queue)
{
	if (queue != EVENTQ_SHARED)
		gz_and(&taken, ~(1ull << queue));
}

static void thread_ends(void *value)
{
	eventq_give((uint32_t)(uintptr_t)value - 1);
	mine = UINT32_MAX;
}

static void make_key(void)
{
	(void)pthread_key_create(&ending, thread_ends);
}

uint32_t eventq_mine(void)
{
	if (mine == UINT32_MAX) {
		inside_enter(); /* a handler may want it, too */
		pthread_once(&once, make_key);
		mine = eventq_take();
		(void)pthread_setspecific(ending, (void *)(uintptr_t)(mine + 1));
		inside_leave();
	}
	return mine;
}

int eventq_fd(uint32_t queue)
{
	int fd = __atomic_load_n(&queue_fd[queue], __ATOMIC_ACQUIRE), ends[2];

	if (fd > 0)
		return fd;
	lock_take(&make);
	if (queue_fd[queue] <= 0 &&
	    !REAL(socketpair)(GZ_WAKE_DOMAIN, GZ_WAKE_TYPE | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends)) {
		fd_own(ends[1], &wake_fd[queue]);
		fd_own(ends[0], &queue_fd[queue]);
	}
	lock_give(&make);
	fd = queue_fd[queue];
	return fd > 0 ? fd : -1;
}

int eventq_out(uint32_t queue)
{
	return eventq_fd(queue) > 0 ? wake_fd[queue] : -1;
}

static void set_asleep(uint32_t queue, uint32_t asleep)
{
	ATTACHMENT_EACH(a, i)
	{
		struct gz_bell *bell = attachment_bell(a, queue);

		if (bell && (asleep || gz_load(&bell->asleep)))
			gz_store(&bell->asleep, asleep);
	}
}

/* Makes sure that the peer can wake this queue. */
static void announce(struct attachment *a, uint32_t queue)
{
	int fd;

	if (gz_load(&a->announced) & 1ull << queue)
		return;
	fd = eventq_out(queue);
	if (fd >= 0)
		a->ops->announce(a, queue, fd);
}

void eventq_declare(uint32_t queue)
{
	ATTACHMENT_EACH(a, i)
	{
		if (attachment_is_open(a))
			announce(a, queue);
	}
	lock_take(&sleepers[queue].lock);
	gz_add(&sleepers[queue].count, 1);
	set_asleep(queue, 1);
	lock_give(&sleepers[queue].lock);
	gz_fence(); /* pairs with the worker's between ringing and looking whether we sleep */
}

void eventq_retract(uint32_t queue)
{
	lock_take(&sleepers[queue].lock);
	/* The worker took the declaration back when it woke one of us. */
	set_asleep(queue, gz_add(&sleepers[queue].count, (uint32_t)-1) > 1);
	lock_give(&sleepers[queue].lock);
}

uint32_t eventq_sleepers(uint32_t queue)
{
	return gz_load(&sleepers[queue].count);
}

bool eventq_rung(uint32_t queue)
{
	ATTACHMENT_EACH(a, i)
	{
		struct gz_bell *bell = attachment_bell(a, queue);

		if (bell && gz_bell_pending(bell))
			return true;
	}
	return false;
}

void eventq_wake(uint32_t queue)
{
	int fd = __atomic_load_n(&wake_fd[queue], __ATOMIC_ACQUIRE);

	if (fd > 0)
		(void)confined_wake(fd);
}

void eventq_wake_all(void)
{
	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++)
		eventq_wake(k);
}

/* A peer has shut down the socket that wakes this queue, which all peers share: they get another. */
static void renew(uint32_t queue)
{
	lock_take(&make);
	fd_own_close(&queue_fd[queue]);
	fd_own_close(&wake_fd[queue]);
	lock_give(&make);
	ATTACHMENT_EACH(a, i)
	{
		gz_and(&a->announced, ~(1ull << queue));
	}
}

void eventq_drain(uint32_t queue)
{
	/* Usually there is one; what is left wakes once more for nothing. */
	if (!confined_drain(queue_fd[queue]))
		renew(queue);
}

uint64_t eventq_after_fork(uint64_t in_use)
{
	make.word = 0;
	memset(sleepers, 0, sizeof(sleepers));
	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++)
		if (queue_fd[k] > 0) {
			fd_own_close(&queue_fd[k]);
			fd_own_close(&wake_fd[k]);
		}
	if (mine != UINT32_MAX)
		in_use |= 1ull << mine;
	in_use |= 1ull << EVENTQ_SHARED;
	gz_store(&taken, in_use);
	return in_use;
}
