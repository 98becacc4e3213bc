/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A small program to be killed: it listens, connects, sends, waits in epoll for what comes back, says "ready" and waits on.
 *   small_program ADDRESS PORT PEER-ADDRESS PEER-PORT
 */
#include <arpa/inet.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port)) };

	if (inet_pton(AF_INET, host, &addr.sin_addr) != 1)
		errx(64, "%s: no address", host);
	return addr;
}

int main(int argc, char **argv)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct sockaddr_in own, peer;
	char bytes[4096] = "hello";
	int epoll, listener, connection;

	if (argc != 5)
		errx(64, "usage: small_program ADDRESS PORT PEER-ADDRESS PEER-PORT");
	own = address(argv[1], argv[2]);
	peer = address(argv[3], argv[4]);
	epoll = epoll_create1(0);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	connection = socket(AF_INET, SOCK_STREAM, 0);
	if (epoll < 0 || listener < 0 || connection < 0)
		err(71, "socket");
	if (bind(listener, (struct sockaddr *)&own, sizeof(own)) || listen(listener, 16))
		err(71, "listen");
	if (connect(connection, (struct sockaddr *)&peer, sizeof(peer)))
		err(71, "connect");
	if (write(connection, bytes, sizeof(bytes)) != (ssize_t)sizeof(bytes))
		err(71, "write");
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) || epoll_ctl(epoll, EPOLL_CTL_ADD, connection, &event))
		err(71, "epoll_ctl");
	if (epoll_wait(epoll, &event, 1, 10000) != 1 || read(connection, bytes, sizeof(bytes)) <= 0)
		err(71, "nothing came back");
	puts("ready");
	fflush(stdout);
	for (;;)
		(void)epoll_wait(epoll, &event, 1, -1);
}
