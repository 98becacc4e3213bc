/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Many connections at once.
 *
 *   burst serve ADDRESS PORT PROCESSES           accepts and holds them; says "listening"
 *   burst connect ADDRESS PORT COUNT PROCESSES [FROM]...
 *                                                asks for COUNT at the same moment, and says how long they took, as JSON
 *
 * A process holds at most as many descriptors as its limit, so both sides share the work among processes. Each takes one of
 * the addresses FROM: from one address the kernel's search for a free port becomes slow beyond half of
 * net.ipv4.ip_local_port_range.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 512
#define GIVE_UP_S 60.0

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static union address address;
static socklen_t address_len;

static int parent = -1; /* a child tells its parent by a byte: 'y' it has done its part, 'n' it has not */

static void fail(const char *what)
{
	fprintf(stderr, "burst: %s: %s\n", what, strerror(errno));
	if (parent >= 0 && write(parent, "n", 1) != 1)
		_exit(1);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static socklen_t read_address(const char *text, uint16_t port, union address *to)
{
	if (inet_pton(AF_INET, text, &to->v4.sin_addr) == 1) {
		to->v4.sin_family = AF_INET;
		to->v4.sin_port = htons(port);
		return sizeof(to->v4);
	}
	if (inet_pton(AF_INET6, text, &to->v6.sin6_addr) == 1) {
		to->v6.sin6_family = AF_INET6;
		to->v6.sin6_port = htons(port);
		return sizeof(to->v6);
	}
	errno = EINVAL;
	fail(text);
	return 0;
}

static void serve(int processes)
{
	int one = 1, listener = socket(address.any.sa_family, SOCK_STREAM, 0);

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (listener < 0 || bind(listener, &address.any, address_len) || listen(listener, 65535))
		fail("listen");
	puts("listening");
	fflush(stdout);
	for (int i = 1; i < processes; i++)
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			break;
		}
	for (;;) {
		if (accept(listener, NULL, NULL) < 0 && errno != EINTR && errno != ECONNABORTED)
			fail("accept");
	}
}

struct burst {
	const char *from; /* NULL: as the kernel likes */
	double *times, start;
	int epoll;
	uint32_t open;
};

/* Notes who has been connected meanwhile. A time stays negative if it failed. */
static void take_connected(struct burst *burst, int wait_ms)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(burst->epoll, events, EVENTS, wait_ms);
	double t = now() - burst->start;

	for (int i = 0; i < n; i++) {
		int error = 0;
		socklen_t len = sizeof(error);

		getsockopt((int)(uint32_t)events[i].data.u64, SOL_SOCKET, SO_ERROR, &error, &len);
		if (!error)
			burst->times[events[i].data.u64 >> 32] = t;
		burst->open--;
	}
}

static int connecting_socket(const char *from)
{
	int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
	union address own;

	if (fd < 0)
		fail("socket");
	if (from) {
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
		if (bind(fd, &own.any, read_address(from, 0, &own)))
			fail(from);
	}
	if (connect(fd, &address.any, address_len) && errno != EINPROGRESS)
		fail("connect");
	return fd;
}

static void connect_all(struct burst *burst, uint32_t count)
{
	burst->epoll = epoll_create1(0);
	for (uint32_t i = 0; i < count; i++) {
		struct epoll_event event = { .events = EPOLLOUT | EPOLLONESHOT, .data.u64 = (uint64_t)i << 32 };
		int fd = connecting_socket(burst->from);

		burst->times[i] = -1;
		event.data.u64 |= (uint32_t)fd;
		if (epoll_ctl(burst->epoll, EPOLL_CTL_ADD, fd, &event))
			fail("epoll_ctl");
		burst->open++;
		if (i % EVENTS == 0)
			take_connected(burst, 0);
	}
	while (burst->open && now() - burst->start < GIVE_UP_S)
		take_connected(burst, 1000);
}

static int by_time(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void report(double *times, uint32_t count)
{
	uint32_t failed = 0;

	qsort(times, count, sizeof(*times), by_time);
	while (failed < count && times[failed] < 0)
		failed++;
	if (failed == count)
		fail("all connects");
	printf("{\"connects\": %u, \"failed\": %u, \"median_ms\": %.1f, \"p99_ms\": %.1f, \"last_ms\": %.1f}\n", count,
	       failed, times[failed + (count - failed) / 2] * 1e3, times[failed + (count - failed) * 99 / 100] * 1e3,
	       times[count - 1] * 1e3);
}

static void connect_in(uint32_t count, uint32_t processes, char **from, uint32_t froms)
{
	double *times = mmap(NULL, count * sizeof(*times), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double start = now() + 0.2 + 0.01 * processes; /* when all are there */
	int done[2];
	char byte;

	if (times == MAP_FAILED || pipe(done))
		fail("start");
	for (uint32_t p = 0; p < processes; p++) {
		uint32_t first = (uint32_t)((uint64_t)count * p / processes);

		if (fork())
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		parent = done[1];
		struct burst burst = { .from = froms ? from[p % froms] : NULL, .times = times + first, .start = start };

		while (now() < start)
			usleep(100);
		connect_all(&burst, (uint32_t)((uint64_t)count * (p + 1) / processes) - first);
		if (write(parent, "y", 1) != 1)
			_exit(1);
		for (;;)
			pause(); /* it holds its connections until all are there, and ends with its parent */
	}
	close(done[1]);
	for (uint32_t p = 0; p < processes; p++)
		if (read(done[0], &byte, 1) != 1 || byte != 'y')
			exit(1);
	report(times, count);
}

int main(int argc, char **argv)
{
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	if (argc == 5 && !strcmp(argv[1], "serve")) {
		address_len = read_address(argv[2], (uint16_t)atoi(argv[3]), &address);
		serve(atoi(argv[4]));
	} else if (argc >= 6 && !strcmp(argv[1], "connect")) {
		address_len = read_address(argv[2], (uint16_t)atoi(argv[3]), &address);
		connect_in((uint32_t)atoi(argv[4]), (uint32_t)atoi(argv[5]), argv + 6, (uint32_t)argc - 6);
		return 0;
	}
	fprintf(stderr,
	        "usage: burst serve ADDRESS PORT PROCESSES | burst connect ADDRESS PORT COUNT PROCESSES [FROM]...\n");
	return 2;
}
