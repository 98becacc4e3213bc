/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Descriptors, children, and workers that die. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "kit.h"

static void join(pid_t pid)
{
	int status = -1;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void duplicates_are_one_socket(void **state)
{
	int fd[2], copy, far;

	kit_pair(fd);
	copy = dup(fd[1]);
	far = fcntl(fd[1], F_DUPFD_CLOEXEC, 300);
	assert_int_equal(dup2(fd[1], 200), 200);
	assert_true(far >= 300 && fcntl(far, F_GETFD) & FD_CLOEXEC);
	close(fd[1]);
	kit_send(fd[0], "one");
	kit_expect(copy, "one");
	close(copy);
	kit_send(200, "two");
	kit_expect(fd[0], "two");
	close(200);
	assert_int_equal(dup2(far, far), far);
	close(far);
	kit_expect_eof(fd[0]); /* with the last of them, not before */
	close(fd[0]);
}

static void dup2_closes_what_was_there(void **state)
{
	int a[2], b[2];

	kit_pair(a);
	kit_pair(b);
	assert_int_equal(dup2(a[1], b[1]), b[1]);
	kit_expect_eof(b[0]);
	kit_send(b[1], "a's");
	kit_expect(a[0], "a's");
	close(a[0]);
	close(a[1]);
	close(b[0]);
	close(b[1]);
}

static void programs_that_close_everything_do_not_cut_us_off(void **state)
{
	int fd[2];

	kit_pair(fd);
	for (int i = fd[0] + fd[1] + 1; i < 4096; i++)
		assert_int_equal(close(i), -1);
	closefrom(fd[0] > fd[1] ? fd[0] + 1 : fd[1] + 1);
	kit_send(fd[0], "still here");
	kit_expect(fd[1], "still here");
	close(fd[0]);
	close(fd[1]);
	kit_pair(fd);
	close(fd[0]);
	close(fd[1]);
}

static void a_program_may_want_any_number(void **state)
{
	int fd[2];

	kit_pair(fd);
	/* Where our own descriptors may be, too: they make room. */
	for (int i = 512; i < 620; i++)
		assert_int_equal(dup2(0, i), i);
	kit_send(fd[0], "moved");
	kit_expect(fd[1], "moved");
	for (int i = 512; i < 620; i++)
		assert_int_equal(close(i), 0);
	kit_send(fd[0], "again");
	kit_expect(fd[1], "again");
	close(fd[0]);
	close(fd[1]);
}

static void a_child_inherits_connections(void **state)
{
	int fd[2];
	pid_t pid;

	kit_pair(fd);
	pid = fork();
	if (!pid) {
		char buf[5];

		if (read(fd[1], buf, 5) != 5 || memcmp(buf, "child", 5) || write(fd[1], "yes", 3) != 3)
			_exit(1);
		_exit(0);
	}
	close(fd[1]); /* accept, fork, the parent closes: the connection is the child's */
	kit_send(fd[0], "child");
	kit_expect(fd[0], "yes");
	join(pid);
	kit_expect_eof(fd[0]);
	close(fd[0]);
}

static void a_child_that_closes_does_not_end_the_parents(void **state)
{
	int fd[2];

	kit_pair(fd);
	for (int i = 0; i < 3; i++) {
		pid_t pid = fork();

		if (!pid) {
			close(fd[0]);
			close(fd[1]);
			_exit(0);
		}
		join(pid);
	}
	kit_send(fd[0], "alive");
	kit_expect(fd[1], "alive");
	close(fd[0]);
	kit_expect_eof(fd[1]);
	close(fd[1]);
}

static void children_share_a_listener(void **state)
{
	enum { CHILDREN = 3, CLIENTS = 12 };
	int listener = kit_listen(STACK_ADDR, 0), port = kit_port(listener);
	pid_t pid[CHILDREN];

	for (int i = 0; i < CHILDREN; i++) {
		pid[i] = fork();
		if (pid[i])
			continue;
		for (;;) {
			char c;
			int fd = accept(listener, NULL, NULL);

			if (fd < 0 || read(fd, &c, 1) != 1)
				_exit(1);
			if (c == 'q')
				_exit(0);
			(void)!write(fd, &c, 1);
			close(fd);
		}
	}
	close(listener);
	for (int i = 0; i < CLIENTS; i++) {
		int fd = kit_connect(PEER_ADDR, (uint16_t)port);

		kit_send(fd, "x");
		kit_expect(fd, "x");
		kit_expect_eof(fd);
		close(fd);
	}
	for (int i = 0; i < CHILDREN; i++) {
		int fd = kit_connect(PEER_ADDR, (uint16_t)port);

		kit_send(fd, "q");
		kit_expect_eof(fd); /* that child has exited, so the next one takes the next connection */
		close(fd);
	}
	for (int i = 0; i < CHILDREN; i++)
		join(pid[i]);
}

static void a_child_uses_an_inherited_set(void **state)
{
	struct epoll_event event = { .events = EPOLLIN };
	int fd[2], ep = epoll_create1(0);
	pid_t pid;

	kit_pair(fd);
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd[1], &event), 0);
	pid = fork();
	if (!pid)
		_exit(epoll_wait(ep, &event, 1, 5000) == 1 && event.events == EPOLLIN ? 0 : 1);
	kit_send(fd[0], "x");
	join(pid);
	assert_int_equal(epoll_wait(ep, &event, 1, 5000), 1);
	close(ep);
	close(fd[0]);
	close(fd[1]);
}

static void vfork_leaves_the_parent_alone(void **state)
{
	int fd[2];
	pid_t pid;

	kit_pair(fd);
	pid = vfork();
	if (!pid) {
		close(fd[0]);
		close(fd[1]);
		_exit(0);
	}
	join(pid);
	kit_send(fd[0], "alive");
	kit_expect(fd[1], "alive");
	close(fd[0]);
	close(fd[1]);
}

static void system_calls_by_number_are_the_same_calls(void **state)
{
	char buf[4];
	int fd[2];

	kit_pair(fd);
	assert_int_equal(syscall(SYS_write, fd[0], "raw", 3), 3);
	kit_await(fd[1], POLLIN);
	assert_int_equal(syscall(SYS_read, fd[1], buf, 4), 3);
	assert_int_equal(syscall(SYS_close, fd[0]), 0);
	kit_expect_eof(fd[1]);
	close(fd[1]);
}

/* Connects until it works; a listener is back within a second of its worker. */
static int connect_soon(uint16_t port)
{
	struct sockaddr_in in = kit_addr(PEER_ADDR, port);
	struct timespec from, now;

	clock_gettime(CLOCK_MONOTONIC, &from);
	do {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (!connect(fd, (struct sockaddr *)&in, sizeof(in)))
			return fd;
		close(fd);
		sched_yield();
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - from.tv_sec < 5);
	return -1;
}

static void a_dead_worker_ends_its_connections_and_nothing_else(void **state)
{
	struct epoll_event event = { .events = EPOLLIN };
	int listener = kit_listen(STACK_ADDR, 0), port = kit_port(listener), ep = epoll_create1(0), fd[2], got;
	char c;

	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, listener, &event), 0);
	fd[0] = kit_connect(PEER_ADDR, (uint16_t)port);
	fd[1] = accept(listener, NULL, NULL);
	event.data.u32 = 1;
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd[1], &event), 0);
	kit_send(fd[0], "x");
	kit_await(fd[1], POLLIN);
	group_kill_worker(0);
	do
		assert_int_equal(epoll_wait(ep, &event, 1, 5000), 1);
	while (!(event.events & EPOLLHUP));
	assert_true(event.events & EPOLLERR);
	kit_expect(fd[1], "x"); /* received before the end */
	assert_errno(read(fd[1], &c, 1), ECONNRESET);
	assert_errno(send(fd[0], "x", 1, MSG_NOSIGNAL), ECONNRESET);
	close(fd[0]);
	close(fd[1]);
	/* The listener comes back with the worker; sleeping in it is enough. */
	group_start_worker(0);
	while (epoll_wait(ep, &event, 1, 30) > 0)
		;
	fd[0] = connect_soon((uint16_t)port);
	assert_true(fd[0] >= 0);
	assert_int_equal(epoll_wait(ep, &event, 1, 5000), 1);
	got = accept(listener, NULL, NULL);
	assert_true(got >= 0);
	kit_send(fd[0], "new");
	kit_expect(got, "new");
	close(got);
	close(fd[0]);
	close(ep);
	close(listener);
}

static void a_blocked_reader_hears_of_the_death(void **state)
{
	int pipes[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (!pid) {
		int fd = kit_connect(PEER_ADDR, 7);

		_exit(write(pipes[1], "x", 1) == 1 && read(fd, &c, 1) < 0 && errno == ECONNRESET ? 0 : 1);
	}
	assert_int_equal(read(pipes[0], &c, 1), 1);
	kit_await_asleep(pid);
	group_kill_worker(0);
	join(pid);
	group_start_worker(0);
	close(pipes[0]);
	close(pipes[1]);
}

static void one_message_wakes_a_worker(void **state)
{
	const struct gz_worker_page *worker = group_worker_page(0);
	const _Atomic uint64_t *messages = &worker->counters[GZ_COUNT_requests];
	int fd = kit_connect(PEER_ADDR, 7);
	uint64_t before;
	char echo[20];

	kit_send(fd, "x");
	kit_expect(fd, "x");
	for (int round = 1; round <= 2; round++) { /* once for each sleep */
		do {
			group_resume_worker(0);
			usleep(10000);
			group_hold_worker(0);
		} while (!gz_load(&worker->asleep));
		before = gz_load(messages);
		for (int i = 0; i < 20; i++)
			kit_send(fd, "y");
		group_resume_worker(0);
		assert_int_equal(recv(fd, echo, sizeof(echo), MSG_WAITALL), sizeof(echo));
		kit_send(fd, "z"); /* what it was sent before, it has read when it answers this */
		kit_expect(fd, "z");
		assert_in_range(gz_load(messages), before + 1, before + 2);
	}
	close(fd);
}

/* A core is to be as large as the program, not as all that its sockets may ever want. */
static void no_core_has_the_shared_memory(void **state)
{
	char line[512];
	int fd[2], ours = 0, left_out = 0;
	unsigned long from, to;
	bool shared = false;
	FILE *maps;

	kit_pair(fd);
	maps = fopen("/proc/self/smaps", "re");
	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) /* the head of a region */
			shared = strstr(line, "memfd:arena") || strstr(line, "memfd:channel");
		if (!shared || strncmp(line, "VmFlags:", 8))
			continue;
		ours++;
		left_out += strstr(line, " dd") != NULL;
	}
	fclose(maps);
	assert_true(ours >= 2);
	assert_int_equal(left_out, ours);
	close(fd[0]);
	close(fd[1]);
}

static void calls_that_succeed_leave_errno_alone(void **state)
{
	struct epoll_event event = { .events = EPOLLIN };
	int listener, client, served, set;
	struct sockaddr_in in;
	char bytes[4];

	group_kill_worker(0); /* the first call after that attaches */
	group_start_worker(0);
	errno = 0;
	listener = kit_listen(STACK_ADDR, 0);
	in = kit_addr(PEER_ADDR, kit_port(listener));
	client = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(client, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(errno, 0);
	served = accept(listener, NULL, NULL);
	set = epoll_create1(EPOLL_CLOEXEC);
	assert_int_equal(epoll_ctl(set, EPOLL_CTL_ADD, served, &event), 0);
	assert_int_equal(epoll_wait(set, &event, 1, 20), 0);
	assert_int_equal(errno, 0);
	kit_send(client, "abc");
	assert_int_equal(epoll_wait(set, &event, 1, 1000), 1);
	assert_int_equal(poll(&(struct pollfd){ .fd = served, .events = POLLIN }, 1, 1000), 1);
	assert_int_equal(recv(served, bytes, 3, 0), 3);
	assert_int_equal(shutdown(served, SHUT_RDWR), 0);
	assert_int_equal(close(set) | close(served) | close(client) | close(listener), 0);
	assert_int_equal(errno, 0);
}

/* ------------------------------------------------------------------ closed while another thread looks it up */

#define CLOSED_TIMES 5000
#define SHOWN 64

static _Atomic int looked_up[2]; /* a socket and an epoll set */
static _Atomic bool done;

static void *looker(void *arg)
{
	struct epoll_event event;
	struct sockaddr_in in;
	socklen_t len;

	while (!done) {
		len = sizeof(in);
		(void)getsockname(looked_up[0], (struct sockaddr *)&in, &len);
		(void)poll(&(struct pollfd){ .fd = looked_up[0], .events = POLLIN }, 1, 0);
		(void)epoll_wait(looked_up[1], &event, 1, 0);
	}
	return arg;
}

/* Were one of them ended twice, two of the next would be the same. */
static void what_is_closed_while_it_is_looked_up_ends_once(void **state)
{
	struct epoll_event event = { .events = EPOLLIN };
	pthread_t thread[2];
	int fd[SHOWN], set[SHOWN];
	int pair[2];

	done = false;
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, looker, NULL), 0);
	for (int i = 0; i < CLOSED_TIMES; i++) {
		looked_up[0] = socket(AF_INET, SOCK_STREAM, 0);
		looked_up[1] = epoll_create1(EPOLL_CLOEXEC);
		assert_int_equal(close(looked_up[0]) | close(looked_up[1]), 0);
	}
	done = true;
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	kit_pair(pair);
	for (int i = 0; i < SHOWN; i++) {
		struct timeval patience = { .tv_sec = i + 1 };

		fd[i] = socket(AF_INET, SOCK_STREAM, 0);
		set[i] = epoll_create1(EPOLL_CLOEXEC);
		assert_int_equal(setsockopt(fd[i], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
		event.data.u32 = (uint32_t)i;
		assert_int_equal(epoll_ctl(set[i], EPOLL_CTL_ADD, pair[1], &event), 0);
	}
	kit_send(pair[0], "x");
	for (int i = 0; i < SHOWN; i++) {
		struct timeval patience = { 0 };
		socklen_t len = sizeof(patience);

		assert_int_equal(getsockopt(fd[i], SOL_SOCKET, SO_RCVTIMEO, &patience, &len), 0);
		assert_int_equal(patience.tv_sec, i + 1);
		assert_int_equal(epoll_wait(set[i], &event, 1, 5000), 1);
		assert_int_equal(event.data.u32, i);
		assert_int_equal(close(fd[i]) | close(set[i]), 0);
	}
	close(pair[0]);
	close(pair[1]);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(duplicates_are_one_socket),
	cmocka_unit_test(dup2_closes_what_was_there),
	cmocka_unit_test(programs_that_close_everything_do_not_cut_us_off),
	cmocka_unit_test(a_program_may_want_any_number),
	cmocka_unit_test(a_child_inherits_connections),
	cmocka_unit_test(a_child_that_closes_does_not_end_the_parents),
	cmocka_unit_test(children_share_a_listener),
	cmocka_unit_test(a_child_uses_an_inherited_set),
	cmocka_unit_test(vfork_leaves_the_parent_alone),
	cmocka_unit_test(system_calls_by_number_are_the_same_calls),
	cmocka_unit_test(a_dead_worker_ends_its_connections_and_nothing_else),
	cmocka_unit_test(one_message_wakes_a_worker),
	cmocka_unit_test(no_core_has_the_shared_memory),
	cmocka_unit_test(calls_that_succeed_leave_errno_alone),
	cmocka_unit_test(what_is_closed_while_it_is_looked_up_ends_once),
	cmocka_unit_test(a_blocked_reader_hears_of_the_death),
};

KIT_MAIN(tests, 1)
