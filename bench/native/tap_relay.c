/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The least that any stack outside the kernel does for a packet, and nothing else: a "worker" takes a datagram off a tap,
 * hands it to a "program" over a UNIX socket, gets it back, and writes it to the tap with its ends exchanged. No protocol,
 * no buffers, no sockets of its own. The client asks through the kernel, as the benchmarks' clients do.
 *
 *   tap_relay CPU_SERVER CPU_CLIENT PAUSE_MS   one line of JSON: round trip in us, median; busy, and after a pause each
 *
 * What a first packet costs here no stack with a worker and a program can undercut. Runs in a network namespace of its own.
 */
#include <sys/epoll.h>
#include <time.h>

#include "tap.h"

#define BUSY_ROUNDS 2000
#define IDLE_ROUNDS 50
#define PATIENCE_S 5
#define PORT 7

enum { ETHERNET_TYPE = 12, IP_PROTOCOL = 23, IP_FROM = 26, IP_TO = 30, UDP_FROM = 34, UDP_TO = 36 };

static void exchange(uint8_t *a, uint8_t *b, int n)
{
	while (n--) {
		uint8_t was = a[n];

		a[n] = b[n];
		b[n] = was;
	}
}

static void program(int worker)
{
	char datagram[2048];
	ssize_t n;

	while ((n = recv(worker, datagram, sizeof(datagram), 0)) > 0)
		if (send(worker, datagram, (size_t)n, 0) != n)
			die("send");
	exit(0);
}

static void worker(int tap, int app)
{
	int queue = epoll_create1(0), fds[] = { tap, app };
	struct epoll_event event = { .events = EPOLLIN };
	uint8_t frame[2048];

	for (int i = 0; i < 2; i++) {
		event.data.fd = fds[i];
		if (epoll_ctl(queue, EPOLL_CTL_ADD, fds[i], &event))
			die("epoll_ctl");
	}
	while (epoll_wait(queue, &event, 1, -1) >= 0) {
		ssize_t n = read(event.data.fd, frame, sizeof(frame));

		if (n <= 0 || (event.data.fd == tap && (frame[ETHERNET_TYPE] != 8 || frame[IP_PROTOCOL] != IPPROTO_UDP)))
			continue;
		if (event.data.fd == tap) {
			exchange(frame, frame + 6, 6);
			exchange(frame + IP_FROM, frame + IP_TO, 4);
			exchange(frame + UDP_FROM, frame + UDP_TO, 2);
		}
		if (write(event.data.fd == tap ? app : tap, frame, (size_t)n) != n)
			die("write");
	}
	die("epoll_wait");
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double median_us(int fd, int rounds, long pause_ms)
{
	static uint64_t took[BUSY_ROUNDS];
	struct timespec pause = { pause_ms / 1000, pause_ms % 1000 * 1000000 }, before, after;
	char datagram[64] = "";

	for (int i = 0; i < rounds; i++) {
		if (pause_ms)
			nanosleep(&pause, NULL);
		clock_gettime(CLOCK_MONOTONIC, &before);
		if (send(fd, datagram, sizeof(datagram), 0) < 0 || recv(fd, datagram, sizeof(datagram), 0) < 0)
			die("no answer");
		clock_gettime(CLOCK_MONOTONIC, &after);
		took[i] = (uint64_t)(after.tv_sec - before.tv_sec) * 1000000000u + (uint64_t)after.tv_nsec -
		          (uint64_t)before.tv_nsec;
	}
	qsort(took, (size_t)rounds, sizeof(*took), by_size);
	return (double)took[rounds / 2] / 1000.0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in there = address(TAP_THERE, PORT);
	struct timeval patience = { .tv_sec = PATIENCE_S };
	pid_t children[2];
	int tap, ends[2], fd;
	double busy, idle;

	if (argc != 4) {
		fprintf(stderr, "usage: tap_relay CPU_SERVER CPU_CLIENT PAUSE_MS\n");
		return 64;
	}
	tap = make_tap(0);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends))
		die("socketpair");
	children[0] = child_on(argv[1]);
	if (!children[0]) {
		close(tap);
		program(ends[1]);
	}
	children[1] = child_on(argv[1]);
	if (!children[1])
		worker(tap, ends[0]);
	pin(argv[2]);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof(there)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		die("client");
	median_us(fd, 100, 0);
	busy = median_us(fd, BUSY_ROUNDS, 0);
	idle = median_us(fd, IDLE_ROUNDS, atol(argv[3]));
	printf("{\"busy_us\": %.2f, \"idle_us\": %.2f}\n", busy, idle);
	for (int i = 0; i < 2; i++)
		end_child(children[i]);
	return 0;
}
