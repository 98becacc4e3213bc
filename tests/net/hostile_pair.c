/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A program that talks to another one of its host and, once they talk, writes nonsense into all memory the two share and
 * into every socket between them. It needs to know of neither more than what the kernel says of its own process.
 *
 *   hostile_pair connect ADDRESS PORT    to a server that echoes
 *   hostile_pair listen ADDRESS PORT     serves whoever connects, one after the other, with nonsense
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SPREE_NS 150000000ull
#define CONTROLLED (8u << 20) /* what stands before the bytes of the connections */

static uint64_t state = 88172645463325252ull;

static uint64_t any(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Small numbers, single bits and anything: each is nonsense to some field. */
static uint32_t nonsense(void)
{
	switch (any() % 4) {
	case 0:
		return (uint32_t)any() % 8;
	case 1:
		return 1u << any() % 32;
	case 2:
		return UINT32_MAX - (uint32_t)any() % 8;
	default:
		return (uint32_t)any();
	}
}

/* Everything from the beginning for a while, then places at random. Returns how many pairs there were. */
static int scribble(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	int pairs = 0;

	while (maps && fgets(line, sizeof(line), maps)) {
		unsigned long from, to;

		if (!strstr(line, "gazelle-pair") || sscanf(line, "%lx-%lx", &from, &to) != 2)
			continue;
		volatile uint32_t *memory = (volatile uint32_t *)from;
		size_t words = (to - from < CONTROLLED ? to - from : CONTROLLED) / sizeof(*memory);

		pairs++;
		for (uint64_t until = now_ns() + SPREE_NS; now_ns() < until;)
			for (int i = 0; i < 1000; i++)
				memory[any() % words] = nonsense();
	}
	if (maps)
		fclose(maps);
	return pairs;
}

/* The library keeps its descriptors high; the member sockets of pairs and the ends that wake others are all of one kind. */
static void babble(void)
{
	char message[144];

	for (int fd = 3; fd < 4096; fd++) {
		int type = 0;
		socklen_t len = sizeof(type);
		struct sockaddr_storage peer;
		socklen_t size = sizeof(peer);

		if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_SEQPACKET)
			continue;
		/* A worker's socket has a name. */
		if (getpeername(fd, (struct sockaddr *)&peer, &size) || size > sizeof(sa_family_t))
			continue;
		for (int i = 0; i < 20; i++) {
			for (size_t b = 0; b < sizeof(message); b++)
				message[b] = (char)any();
			(void)!send(fd, message, any() % sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL);
		}
	}
}

static void attack(int fd)
{
	char byte;

	(void)!write(fd, "x", 1);
	(void)!recv(fd, &byte, 1, MSG_DONTWAIT);
	if (!scribble())
		exit(2);
	babble();
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (argc != 4 || fd < 0)
		return 64;
	addr.sin_port = htons((uint16_t)atoi(argv[3]));
	inet_pton(AF_INET, argv[2], &addr.sin_addr);
	state += (uint64_t)getpid();
	if (!strcmp(argv[1], "connect")) {
		if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
			return 3;
		attack(fd);
		return 0;
	}
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 16))
		return 4;
	puts("ready");
	fflush(stdout);
	for (;;) {
		int client = accept(fd, NULL, NULL);

		if (client >= 0)
			attack(client);
	}
}
