/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * One thread opens and closes sockets under one number while two put that number into an epoll set, which is made anew now
 * and then. Says "done" and how many were put in.
 *   epoll_race ADDRESS tcp|udp ROUNDS
 */
#include <arpa/inet.h>
#include <err.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ADDERS 2
#define SETS_EVERY 20 /* rounds */
#define EVENTS 8

static _Atomic int number = -1, set = -1, stop;
static _Atomic long added;

static void *add(void *unused)
{
	struct epoll_event event = { .events = EPOLLIN };

	while (!stop)
		added += !epoll_ctl(set, EPOLL_CTL_ADD, number, &event);
	return unused;
}

static void another_set(void)
{
	struct epoll_event events[EVENTS];
	int old = set;

	epoll_wait(old, events, EVENTS, 0);
	set = epoll_create1(0);
	if (set < 0)
		err(1, "epoll_create1");
	close(old);
}

static void open_and_close(const struct sockaddr_in *addr, bool tcp)
{
	int fd = socket(AF_INET, tcp ? SOCK_STREAM : SOCK_DGRAM, 0);

	if (fd < 0 || bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) || (tcp && listen(fd, 1)))
		err(1, "socket, bind, listen");
	number = fd;
	for (volatile int pause = rand() % 2000; pause > 0; pause--)
		;
	close(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	pthread_t adders[ADDERS];

	if (argc != 4 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1)
		errx(64, "usage: epoll_race ADDRESS tcp|udp ROUNDS");
	set = epoll_create1(0);
	for (int i = 0; i < ADDERS; i++)
		if (pthread_create(&adders[i], NULL, add, NULL))
			errx(1, "no thread");
	for (int round = 0; round < atoi(argv[3]); round++) {
		open_and_close(&addr, !strcmp(argv[2], "tcp"));
		if (round % SETS_EVERY == 0)
			another_set();
	}
	stop = 1;
	for (int i = 0; i < ADDERS; i++)
		pthread_join(adders[i], NULL);
	printf("done %ld\n", added);
	return 0;
}
