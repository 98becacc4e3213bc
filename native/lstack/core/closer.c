/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "core/closer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define USERS_MAX 256u
#define WAITING_MAX 65536u /* more than the worker may have descriptors */

char closer_mark;

static struct {
	int wake_fd;
	pthread_mutex_t lock;
	pthread_cond_t more, serves;
	bool open;
	_Atomic uint32_t held; /* that were taken and are not closed */
	uint32_t first, count;
	struct {
		int fd;
		uint32_t user;
	} waiting[WAITING_MAX];
	struct {
		uid_t uid;
		uint32_t count;
	} users[USERS_MAX];
} closer = { .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER, .serves = PTHREAD_COND_INITIALIZER };

static void *serve(void *arg)
{
	const uint64_t one = 1;

	(void)arg;
	pthread_mutex_lock(&closer.lock);
	closer.open = true;
	pthread_cond_signal(&closer.serves);
	for (;;) {
		while (!closer.count) {
			(void)!write(closer.wake_fd, &one, sizeof(one));
			pthread_cond_wait(&closer.more, &closer.lock);
		}
		int fd = closer.waiting[closer.first].fd;
		uint32_t user = closer.waiting[closer.first].user;

		closer.first = (closer.first + 1) % WAITING_MAX;
		closer.count--;
		pthread_mutex_unlock(&closer.lock);
		close(fd);
		pthread_mutex_lock(&closer.lock);
		closer.users[user].count--;
		closer.held--;
	}
	return NULL;
}

int closer_open(int epoll_fd)
{
	struct epoll_event each_time = { .events = EPOLLIN | EPOLLET, .data.ptr = CLOSER_MARK };
	sigset_t all, before;
	pthread_t thread;
	int err;

	closer.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (closer.wake_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, closer.wake_fd, &each_time))
		return -errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the worker's own thread */
	err = pthread_create(&thread, NULL, serve, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err)
		return -err;
	pthread_setname_np(thread, "lstack-closer");
	pthread_mutex_lock(&closer.lock);
	while (!closer.open) /* what a thread does at its start is not on the list of system calls */
		pthread_cond_wait(&closer.serves, &closer.lock);
	pthread_mutex_unlock(&closer.lock);
	pthread_detach(thread);
	return 0;
}

/* His place, or a free one; USERS_MAX: all are taken by others. Locked. */
static uint32_t place_of(uid_t whose)
{
	uint32_t found = USERS_MAX;

	for (uint32_t i = 0; i < USERS_MAX; i++) {
		if (!closer.users[i].count)
			found = i;
		else if (closer.users[i].uid == whose)
			return i;
	}
	return found;
}

void closer_take(int fd, uid_t whose)
{
	uint32_t user;

	if (!closer.open) {
		close(fd);
		return;
	}
	pthread_mutex_lock(&closer.lock);
	user = place_of(whose);
	/* Without room it stays open, which costs a descriptor and holds nobody up. */
	if (user < USERS_MAX && closer.count < WAITING_MAX) {
		closer.users[user].uid = whose;
		closer.users[user].count++;
		closer.held++;
		closer.waiting[(closer.first + closer.count) % WAITING_MAX].fd = fd;
		closer.waiting[(closer.first + closer.count) % WAITING_MAX].user = user;
		closer.count++;
		pthread_cond_signal(&closer.more);
	}
	pthread_mutex_unlock(&closer.lock);
}

uint32_t closer_waiting(void)
{
	return closer.held;
}

bool closer_is_held_by(uid_t whose)
{
	uint32_t user;
	bool held;

	if (!closer.held)
		return false;
	pthread_mutex_lock(&closer.lock);
	user = place_of(whose);
	held = user < USERS_MAX && closer.users[user].count > CLOSER_PER_USER;
	pthread_mutex_unlock(&closer.lock);
	return held;
}
