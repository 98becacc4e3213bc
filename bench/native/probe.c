/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Asks a server for one answer until it gets it: a new connection each time, TRY_MS for connect and answer together.
 *
 *   probe ADDRESS PORT LIMIT_MS      waits for a line on standard input, then prints the CLOCK_MONOTONIC nanoseconds of
 *                                    the first complete answer
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TRY_MS 20
#define SIZE 64

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Waits for an event until the try is over; true if it came. */
static int comes(int fd, short event, uint64_t until)
{
	struct pollfd look = { .fd = fd, .events = event };
	uint64_t now = now_ns();

	return now < until && poll(&look, 1, (int)((until - now + 999999) / 1000000)) == 1;
}

static int try_once(const struct sockaddr_in *to)
{
	struct linger reset = { 1, 0 }; /* a try given up leaves nothing behind */
	uint64_t until = now_ns() + TRY_MS * 1000000u;
	char bytes[SIZE] = "";
	int error = 0, done = 0, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	socklen_t size = sizeof(error);
	ssize_t got = 0, more;

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) && errno != EINPROGRESS)
		goto close;
	if (!comes(fd, POLLOUT, until) || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) || error)
		goto close;
	if (write(fd, bytes, SIZE) != SIZE)
		goto close;
	while (got < SIZE && comes(fd, POLLIN, until)) {
		more = read(fd, bytes, sizeof(bytes));
		if (more <= 0)
			break;
		got += more;
	}
	done = got == SIZE;
close:
	close(fd);
	return done;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	struct timespec pause = { 0, 1000000 };
	char line[16];
	uint64_t end;

	if (argc != 4 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
		fprintf(stderr, "usage: probe ADDRESS PORT LIMIT_MS\n");
		return 64;
	}
	to.sin_port = htons((uint16_t)atoi(argv[2]));
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	end = now_ns() + (uint64_t)atoi(argv[3]) * 1000000u;
	while (!try_once(&to)) {
		if (now_ns() > end) {
			fprintf(stderr, "probe: no answer within %s ms\n", argv[3]);
			return 1;
		}
		nanosleep(&pause, NULL);
	}
	printf("%llu\n", (unsigned long long)now_ns());
	return 0;
}
