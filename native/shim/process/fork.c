/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "worker/attach.h"
#include "wait/epoll_set.h"
#include "core/eventq.h"
#include "worker/program.h"
#include "core/fdtable.h"
#include "process/fork.h"
#include "core/attachment.h"
#include "samehost/children.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"
#include "worker/group.h"
#include "core/lost.h"
#include "worker/requests.h"

/* The child's ends of its control sockets, between before() and after; -1 = none. shim.lock. */
static int child_fd[GZ_WORKERS_MAX];

static void before(void)
{
	/* A socket made later can be passed to the child only if the workers know whose it is. */
	if (gz_load(&shim.passes))
		(void)group_on();
	/* A child that forks must hold what it inherited first. */
	WORKER_EACH(a, i)
	{
		if (!a->channel)
			(void)program_claim(a);
	}
	shim_lock();
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct attachment *a = gz_load(&shim.attachments[i]);

		child_fd[i] = -1;
		if (a) {
			lock_take(&a->post);
			/* The child is to hold what was just accepted, too: claims come before the introduction. */
			request_settle(a);
			child_fd[i] = program_fork(a);
		}
	}
	pair_before_fork();
	epoll_before_fork();
	gz_add(&shim.forks, 1);
}

static void after_in_parent(void)
{
	epoll_after_fork();
	pair_after_fork_in_parent();
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct attachment *a = gz_load(&shim.attachments[i]);

		if (child_fd[i] >= 0)
			UNCANCELLED(close, child_fd[i]);
		if (a)
			lock_give(&a->post);
	}
	shim_unlock();
}

/* The parent's channel is not ours to write to; ours comes with the claim. */
static void inherit(struct attachment *a, int control_fd)
{
	a->post.word = 0;
	munmap(a->channel, sizeof(*a->channel));
	a->channel = NULL;
	fd_own_close(&a->control_fd);
	gz_store(&a->announced, 0);
	if (control_fd >= 0) {
		fd_own(control_fd, &a->control_fd);
		attach_wake_by_control(a);
		a->unclaimed = true;
	} else if (a->wake_fd > 0) {
		fd_own_close(&a->wake_fd); /* the parent's control socket */
	}
}

static void after_in_child(void)
{
	uint64_t queues = eventq_after_fork(epoll_queues());

	epoll_after_fork();
	sock_after_fork();
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct attachment *a = gz_load(&shim.attachments[i]);

		if (!a || !a->channel)
			continue;
		inherit(a, child_fd[i]);
		if (child_fd[i] < 0)
			attachment_lost(a); /* the worker could not take a child: its sockets are dead here */
	}
	attach_after_fork();
	pair_after_fork_in_child(queues);
	inside_after_fork();
	shim_unlock();
}

void fork_begins(void)
{
	before();
}

void fork_ends(long child)
{
	if (child)
		after_in_parent();
	else
		after_in_child();
}

void fork_prepare_library(void)
{
	(void)pthread_atfork(before, after_in_parent, after_in_child);
}
