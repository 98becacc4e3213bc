/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Threads, processes and sets around sets that wait for the same sockets: nobody is forgotten, nothing is told twice. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "kit.h"

#define LONG_MS 10000 /* longer than any test should take: who waits so long was forgotten */

/* The sanitizer's own stack for signals trips it when a cancelled thread gives it back. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "use_sigaltstack=0";
}

static uint64_t ms_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void add(int ep, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.u64 = (uint64_t)fd };

	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event), 0);
}

static int set_with(int fd, uint32_t events)
{
	int ep = epoll_create1(0);

	assert_true(ep >= 0);
	add(ep, fd, events);
	return ep;
}

/* A thread in epoll_wait or poll on a set. */
struct waiter {
	pthread_t thread;
	int fd, ms;
	bool polls;
	_Atomic pid_t tid;
	int result;
	uint64_t took;
};

static void *wait_in_thread(void *arg)
{
	struct waiter *w = arg;
	struct pollfd p = { .fd = w->fd, .events = POLLIN };
	struct epoll_event event;
	uint64_t from = ms_now();

	atomic_store(&w->tid, (pid_t)syscall(SYS_gettid));
	w->result = w->polls ? poll(&p, 1, w->ms) : epoll_wait(w->fd, &event, 1, w->ms);
	w->took = ms_now() - from;
	return NULL;
}

static void start(struct waiter *w, int fd, bool polls, int ms)
{
	*w = (struct waiter){ .fd = fd, .polls = polls, .ms = ms };
	assert_int_equal(pthread_create(&w->thread, NULL, wait_in_thread, w), 0);
	while (!atomic_load(&w->tid))
		sched_yield();
	kit_await_asleep(atomic_load(&w->tid));
}

static int end(struct waiter *w)
{
	pthread_join(w->thread, NULL);
	return w->result;
}

static void close_pair(int fd[2])
{
	close(fd[0]);
	close(fd[1]);
}

static void a_poller_that_gives_up_does_not_put_the_waiter_to_sleep(void **state)
{
	struct waiter waiter;
	int fd[2], ep;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN);
	start(&waiter, ep, false, LONG_MS);
	struct pollfd p = { .fd = ep, .events = POLLIN };
	assert_int_equal(poll(&p, 1, 30), 0);
	kit_send(fd[0], "x");
	assert_int_equal(end(&waiter), 1);
	assert_true(waiter.took < LONG_MS);
	close(ep);
	close_pair(fd);
}

static void everybody_hears_of_what_nobody_has_read(void **state)
{
	enum { WAITERS = 4 };
	struct waiter waiter[WAITERS];
	int fd[2], ep, outer;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN);
	outer = set_with(ep, EPOLLIN);
	for (int i = 0; i < WAITERS; i++)
		start(&waiter[i], i == 3 ? outer : ep, i == 2, LONG_MS);
	kit_send(fd[0], "x");
	for (int i = 0; i < WAITERS; i++) {
		assert_int_equal(end(&waiter[i]), 1);
		assert_true(waiter[i].took < LONG_MS);
	}
	close(outer);
	close(ep);
	close_pair(fd);
}

static void one_shot_is_told_to_one(void **state)
{
	struct waiter waiter[2];
	int fd[2], ep;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN | EPOLLONESHOT);
	for (int i = 0; i < 2; i++)
		start(&waiter[i], ep, false, 300);
	kit_send(fd[0], "x");
	assert_int_equal(end(&waiter[0]) + end(&waiter[1]), 1);
	close(ep);
	close_pair(fd);
}

static void a_set_three_levels_up_is_told(void **state)
{
	struct waiter waiter;
	struct epoll_event event;
	int fd[2], ep[4];

	kit_pair(fd);
	ep[0] = set_with(fd[1], EPOLLIN);
	for (int i = 1; i < 4; i++)
		ep[i] = set_with(ep[i - 1], EPOLLIN | (i == 3 ? EPOLLET : 0));
	assert_errno(epoll_ctl(ep[0], EPOLL_CTL_ADD, ep[3], &(struct epoll_event){ .events = EPOLLIN }), ELOOP);
	start(&waiter, ep[3], false, LONG_MS);
	kit_send(fd[0], "x");
	assert_int_equal(end(&waiter), 1);
	assert_int_equal(epoll_wait(ep[3], &event, 1, 0), 0); /* an edge */
	assert_int_equal(epoll_wait(ep[2], &event, 1, 0), 1);
	kit_send(fd[0], "y");
	assert_int_equal(epoll_wait(ep[3], &event, 1, LONG_MS), 1);
	assert_int_equal(event.data.u64, ep[2]);
	/* The sets go from the middle outwards. */
	close(ep[1]);
	kit_send(fd[0], "z");
	assert_int_equal(epoll_wait(ep[3], &event, 1, 20), 0);
	assert_int_equal(epoll_wait(ep[0], &event, 1, LONG_MS), 1);
	close(ep[3]);
	close(ep[2]);
	close(ep[0]);
	close_pair(fd);
}

static void a_polled_set_may_get_its_first_socket_meanwhile(void **state)
{
	struct waiter waiter[2];
	int fd[2], ep = epoll_create1(0), outer;

	kit_pair(fd);
	outer = set_with(ep, EPOLLIN);
	start(&waiter[0], ep, true, LONG_MS);
	start(&waiter[1], outer, false, LONG_MS);
	add(ep, fd[1], EPOLLOUT);
	assert_int_equal(end(&waiter[0]), 1);
	assert_int_equal(end(&waiter[1]), 1);
	close(outer);
	close(ep);
	close_pair(fd);
}

static void a_set_closed_under_its_waiter_is_waited_in_to_the_end(void **state)
{
	struct waiter waiter;
	int fd[2], ep, other;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN);
	start(&waiter, ep, false, 200);
	other = set_with(fd[0], EPOLLOUT); /* ready, and soon under the number of the first */
	assert_int_equal(dup2(other, ep), ep);
	assert_int_equal(end(&waiter), 0);
	assert_true(waiter.took >= 199);
	close(other);
	close(ep);
	close_pair(fd);
}

static void a_fork_leaves_waiters_of_both_processes_awake(void **state)
{
	struct epoll_event event;
	struct waiter waiter;
	int fd[2], ep, status;
	pid_t child;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN);
	start(&waiter, ep, false, LONG_MS);
	child = fork();
	assert_true(child >= 0);
	if (!child)
		_exit(epoll_wait(ep, &event, 1, LONG_MS) == 1 ? 0 : 1);
	kit_await_asleep(child);
	kit_send(fd[0], "x");
	assert_int_equal(end(&waiter), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	close(ep);
	close_pair(fd);
}

static void a_bell_of_a_listener_that_is_gone_is_nobodys(void **state)
{
	int listener = kit_listen(STACK_ADDR, 0), fd[2], client, ep;
	struct epoll_event event;

	kit_pair(fd);
	ep = set_with(listener, EPOLLIN);
	add(ep, fd[1], EPOLLIN);
	client = kit_connect(PEER_ADDR, kit_port(listener));
	kit_await(listener, POLLIN); /* it has rung, and the set has not looked */
	shutdown(listener, SHUT_RD);
	close(listener);
	assert_int_equal(epoll_wait(ep, &event, 1, 0), 0);
	kit_send(fd[0], "x");
	assert_int_equal(epoll_wait(ep, &event, 1, LONG_MS), 1);
	assert_int_equal(event.data.u64, fd[1]);
	close(client);
	close(ep);
	close_pair(fd);
}

static void *send_for_ever(void *arg)
{
	while (send(*(int *)arg, "x", 1, MSG_NOSIGNAL) >= 0)
		;
	return NULL;
}

static void *accept_for_ever(void *arg)
{
	for (;;)
		close(accept(*(int *)arg, NULL, NULL));
	return NULL;
}

static void a_cancelled_thread_leaves_no_lock_behind(void **state)
{
	for (int round = 0; round < 16; round++) {
		int fd[2], listener = kit_listen("0.0.0.0", 0);
		pthread_t sender, accepter;
		char buf[4096];

		kit_pair(fd);
		pthread_create(&sender, NULL, send_for_ever, &fd[0]);
		pthread_create(&accepter, NULL, accept_for_ever, &listener);
		for (int i = 0; i < round; i++)
			close(kit_connect("127.0.0.1", kit_port(listener)));
		assert_true(recv(fd[1], buf, sizeof(buf), 0) > 0);
		pthread_cancel(sender);
		pthread_cancel(accepter);
		while (recv(fd[1], buf, sizeof(buf), MSG_DONTWAIT) > 0)
			;
		pthread_join(sender, NULL);
		pthread_join(accepter, NULL);
		/* Whatever they held, these must not wait for it. */
		close(listener);
		close_pair(fd);
	}
}

/* ------------------------------------------------------------------ stress */

#define SOCKETS 8
#define WORKERS 4
#define MESSAGES 4000

static int crowd[SOCKETS][2], crowd_set;
static _Atomic int received, last;

/* As a thread pool does it: one shot, read all, arm again. */
static void *serve(void *arg)
{
	struct epoll_event event;
	char buf[64];

	while (atomic_load(&received) < MESSAGES) {
		ssize_t n;

		if (epoll_wait(crowd_set, &event, 1, LONG_MS) != 1)
			return (void *)1;
		if ((int)event.data.u64 == crowd[0][0])
			return NULL;
		while ((n = recv((int)event.data.u64, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
			atomic_fetch_add(&received, (int)n);
		event.events = EPOLLIN | EPOLLONESHOT;
		if (epoll_ctl(crowd_set, EPOLL_CTL_MOD, (int)event.data.u64, &event))
			return (void *)2;
	}
	/* The end is for everybody: level-triggered, and read by nobody. */
	if (!atomic_exchange(&last, 1))
		kit_send(crowd[0][1], "end");
	return NULL;
}

static void a_pool_of_threads_serves_every_message_once(void **state)
{
	pthread_t thread[WORKERS];

	received = last = 0;
	crowd_set = epoll_create1(0);
	for (int i = 0; i < SOCKETS; i++) {
		kit_pair(crowd[i]);
		add(crowd_set, crowd[i][1], EPOLLIN | EPOLLONESHOT);
	}
	add(crowd_set, crowd[0][0], EPOLLIN);
	for (int i = 0; i < WORKERS; i++)
		pthread_create(&thread[i], NULL, serve, NULL);
	for (int sent = 0; sent < MESSAGES; sent++) {
		kit_send(crowd[sent % SOCKETS][0], "m");
		if (sent % 64 == 0)
			sched_yield();
	}
	for (int i = 0; i < WORKERS; i++) {
		void *failed;

		pthread_join(thread[i], &failed);
		assert_null(failed);
	}
	assert_int_equal(received, MESSAGES);
	close(crowd_set);
	for (int i = 0; i < SOCKETS; i++)
		close_pair(crowd[i]);
}

static _Atomic bool stop;

static void *wait_on(void *arg)
{
	struct epoll_event event[4];
	struct pollfd p = { .fd = crowd_set, .events = POLLIN };

	while (!atomic_load(&stop)) {
		if ((uintptr_t)arg % 2)
			(void)poll(&p, 1, 5);
		else
			(void)epoll_wait(crowd_set, event, 4, 5);
	}
	return NULL;
}

static void sets_survive_what_threads_do_to_them(void **state)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT };
	uint64_t until = ms_now() + 700;
	pthread_t thread[WORKERS];
	uint32_t seed = 1;
	int inner = epoll_create1(0), renewed = 0;

	atomic_store(&stop, false);
	crowd_set = set_with(inner, EPOLLIN);
	for (int i = 0; i < SOCKETS; i++)
		kit_pair(crowd[i]);
	for (uintptr_t i = 0; i < WORKERS; i++)
		pthread_create(&thread[i], NULL, wait_on, (void *)i);
	while (ms_now() < until) {
		int i = rand_r(&seed) % SOCKETS, fd = crowd[i][1], copy;

		switch (rand_r(&seed) % 8) {
		case 0:
		case 1:
			(void)epoll_ctl(rand_r(&seed) % 2 ? crowd_set : inner, EPOLL_CTL_ADD, fd, &event);
			break;
		case 2:
			(void)epoll_ctl(crowd_set, EPOLL_CTL_DEL, fd, NULL);
			break;
		case 3:
			event.events ^= EPOLLET;
			(void)epoll_ctl(crowd_set, EPOLL_CTL_MOD, fd, &event);
			break;
		case 4:
			copy = dup(fd);
			close(fd);
			crowd[i][1] = copy;
			break;
		case 5:
			if (++renewed > 200)
				break; /* the fake worker uses no number twice */
			close_pair(crowd[i]);
			kit_pair(crowd[i]);
			break;
		case 6:
			close(inner);
			inner = epoll_create1(0);
			add(crowd_set, inner, EPOLLIN | EPOLLET);
			break;
		default:
			(void)send(crowd[i][0], "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		}
	}
	atomic_store(&stop, true);
	for (int i = 0; i < WORKERS; i++)
		pthread_join(thread[i], NULL);
	close(inner);
	/* And it still tells. */
	kit_pair(crowd[0]);
	close(crowd_set);
	crowd_set = set_with(crowd[0][1], EPOLLIN);
	kit_send(crowd[0][0], "x");
	assert_int_equal(epoll_wait(crowd_set, &event, 1, LONG_MS), 1);
	close(crowd_set);
	for (int i = 0; i < SOCKETS; i++)
		close_pair(crowd[i]);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(a_poller_that_gives_up_does_not_put_the_waiter_to_sleep),
	cmocka_unit_test(everybody_hears_of_what_nobody_has_read),
	cmocka_unit_test(one_shot_is_told_to_one),
	cmocka_unit_test(a_set_three_levels_up_is_told),
	cmocka_unit_test(a_polled_set_may_get_its_first_socket_meanwhile),
	cmocka_unit_test(a_set_closed_under_its_waiter_is_waited_in_to_the_end),
	cmocka_unit_test(a_fork_leaves_waiters_of_both_processes_awake),
	cmocka_unit_test(a_bell_of_a_listener_that_is_gone_is_nobodys),
	cmocka_unit_test(a_cancelled_thread_leaves_no_lock_behind),
	cmocka_unit_test(a_pool_of_threads_serves_every_message_once),
	cmocka_unit_test(sets_survive_what_threads_do_to_them),
};

KIT_MAIN(tests, 2)
