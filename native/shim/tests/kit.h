/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What the shim's tests share: sockets of a program that happens to be attached. Every wait has an end. */
#ifndef SHIM_TESTS_KIT_H
#define SHIM_TESTS_KIT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "group.h"

#define assert_errno(call, code)               \
	do {                                   \
		errno = 0;                     \
		assert_int_equal((call), -1);  \
		assert_int_equal(errno, code); \
	} while (0)

static inline struct sockaddr_in kit_addr(const char *ip, uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(ip) };
}

static inline uint16_t kit_port(int fd)
{
	struct sockaddr_in in;
	socklen_t len = sizeof(in);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	return ntohs(in.sin_port);
}

/* A listener on that address; the kernel chooses the port. */
static inline int kit_listen(const char *ip, int flags)
{
	struct sockaddr_in in = kit_addr(ip, 0);
	int fd = socket(AF_INET, SOCK_STREAM | flags, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(listen(fd, 64), 0);
	return fd;
}

static inline int kit_connect(const char *ip, uint16_t port)
{
	struct sockaddr_in in = kit_addr(ip, port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	return fd;
}

/* Two ends of a connection through the stack: [0] connected, [1] accepted. */
static inline void kit_pair(int fd[2])
{
	int listener = kit_listen(STACK_ADDR, 0);

	fd[0] = kit_connect(PEER_ADDR, kit_port(listener));
	fd[1] = accept(listener, NULL, NULL);
	if (fd[1] < 0)
		print_error("accept: %s\n", strerror(errno));
	assert_true(fd[1] >= 0);
	close(listener);
}

/* Waits until poll says one of `events`; fails after five seconds. */
static inline short kit_await(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	assert_int_equal(poll(&p, 1, 5000), 1);
	return p.revents;
}

static inline void kit_send(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Reads exactly this. */
static inline void kit_expect(int fd, const char *text)
{
	char buf[256];

	assert_int_equal(recv(fd, buf, strlen(text), MSG_WAITALL), strlen(text));
	assert_memory_equal(buf, text, strlen(text));
}

static inline void kit_expect_eof(int fd)
{
	char c;

	assert_int_equal(read(fd, &c, 1), 0);
}

/* Waits until a thread (of any process) sleeps in the kernel. */
static inline void kit_await_asleep(pid_t tid)
{
	char path[64], line[128];

	for (int asleep = 0, tries = 0; asleep < 50 && tries < 10000000; tries++) {
		FILE *file;

		snprintf(path, sizeof(path), "/proc/%d/stat", (int)tid);
		file = fopen(path, "r");
		if (!file)
			return;
		asleep = fgets(line, sizeof(line), file) && strstr(line, ") S ") ? asleep + 1 : 0;
		fclose(file);
		sched_yield();
	}
}

/* Runs the tests of one program between group_start and group_stop. argv[1] is the fake worker. */
#define KIT_MAIN(tests, workers)                                         \
	int main(int argc, char **argv)                                  \
	{                                                                \
		struct rlimit few = { 1024, 4096 };                      \
		int failed;                                              \
                                                                         \
		close_range(3, ~0u, 0); /* what the harness left open */ \
		setrlimit(RLIMIT_NOFILE, &few);                          \
		alarm(60);                                               \
		group_start(argc > 1 ? argv[1] : "", workers);           \
		failed = cmocka_run_group_tests(tests, NULL, NULL);      \
		group_stop();                                            \
		return failed;                                           \
	}

#endif
