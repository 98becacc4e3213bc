/* SPDX-License-Identifier: MulanPSL-2.0 */
/* connect, listen, accept: which path, and what the program hears. */
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/time.h>

#include "kit.h"

static int start(uint16_t port, int flags)
{
	struct sockaddr_in in = kit_addr(PEER_ADDR, port);
	int fd = socket(AF_INET, SOCK_STREAM | flags, 0);

	if (connect(fd, (struct sockaddr *)&in, sizeof(in)))
		assert_true(errno != 0);
	return fd;
}

static int error_of(int fd)
{
	int error = -1;
	socklen_t len = sizeof(error);

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
	return error;
}

static void refused_and_timed_out_are_told(void **state)
{
	struct sockaddr_in none = kit_addr(PEER_ADDR, 1), slow = kit_addr(PEER_ADDR, 3), echo = kit_addr(PEER_ADDR, 7);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_errno(connect(fd, (struct sockaddr *)&none, sizeof(none)), ECONNREFUSED);
	assert_errno(connect(fd, (struct sockaddr *)&slow, sizeof(slow)), ETIMEDOUT);
	/* The same socket may try again, as with the kernel. */
	assert_int_equal(connect(fd, (struct sockaddr *)&echo, sizeof(echo)), 0);
	kit_send(fd, "hello");
	kit_expect(fd, "hello");
	assert_errno(connect(fd, (struct sockaddr *)&echo, sizeof(echo)), EISCONN);
	close(fd);
}

static void a_non_blocking_connect_is_told_by_writability(void **state)
{
	struct sockaddr_in in = kit_addr(PEER_ADDR, 7);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int r = connect(fd, (struct sockaddr *)&in, sizeof(in));

	assert_true(r == 0 || errno == EINPROGRESS);
	assert_int_equal(kit_await(fd, POLLOUT), POLLOUT);
	assert_int_equal(error_of(fd), 0);
	if (r)
		assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0); /* some libraries ask again */
	assert_errno(connect(fd, (struct sockaddr *)&in, sizeof(in)), EISCONN);
	close(fd);
}

static void a_failed_non_blocking_connect_is_told_by_so_error(void **state)
{
	int fd = start(4, SOCK_NONBLOCK);

	assert_true(kit_await(fd, POLLOUT) & POLLERR);
	assert_int_equal(error_of(fd), ECONNREFUSED);
	assert_int_equal(error_of(fd), 0);
	close(fd);
}

static void a_connect_in_progress_says_so(void **state)
{
	struct sockaddr_in in = kit_addr(PEER_ADDR, 2);
	struct timeval tv = { .tv_usec = 20000 };
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	struct pollfd p;
	char c;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	assert_errno(connect(fd, (struct sockaddr *)&in, sizeof(in)), EINPROGRESS);
	assert_errno(connect(fd, (struct sockaddr *)&in, sizeof(in)), EALREADY);
	assert_errno(getpeername(fd, (struct sockaddr *)&peer, &len), ENOTCONN);
	assert_errno(recv(fd, &c, 1, 0), EAGAIN);
	p = (struct pollfd){ .fd = fd, .events = POLLIN | POLLOUT };
	assert_int_equal(poll(&p, 1, 0), 0);
	close(fd);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)), 0);
	assert_errno(connect(fd, (struct sockaddr *)&in, sizeof(in)), EINPROGRESS);
	close(fd);
}

static void a_socket_added_to_epoll_before_connect_moves(void **state)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT };
	struct sockaddr_in in = kit_addr(PEER_ADDR, 7);
	int ep = epoll_create1(0), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event), 0);
	assert_int_equal(epoll_wait(ep, &event, 1, 0), 1); /* as the kernel says of a socket that is nothing yet */
	assert_int_equal(event.events, EPOLLOUT | EPOLLHUP);
	(void)!connect(fd, (struct sockaddr *)&in, sizeof(in));
	assert_int_equal(epoll_wait(ep, &event, 1, 5000), 1);
	assert_int_equal(event.events, EPOLLOUT);
	kit_send(fd, "x");
	event.events = EPOLLIN;
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &event), 0);
	assert_int_equal(epoll_wait(ep, &event, 1, 5000), 1);
	assert_int_equal(event.events, EPOLLIN);
	close(ep);
	close(fd);
}

static void other_addresses_are_the_kernels(void **state)
{
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	int listener = kit_listen("127.0.0.1", 0), fd = kit_connect("127.0.0.1", kit_port(listener)), got;

	got = accept(listener, (struct sockaddr *)&peer, &len);
	assert_true(got >= 0);
	assert_string_equal(inet_ntoa(peer.sin_addr), "127.0.0.1");
	kit_send(fd, "over the kernel");
	kit_expect(got, "over the kernel");
	close(got);
	close(fd);
	close(listener);
}

static void a_wildcard_listener_takes_clients_of_both(void **state)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	int listener = kit_listen("0.0.0.0", 0), ep = epoll_create1(0), stack, kernel, got;

	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, listener, &event), 0);
	stack = kit_connect(PEER_ADDR, kit_port(listener));
	assert_int_equal(epoll_wait(ep, &event, 1, 5000), 1);
	got = accept(listener, (struct sockaddr *)&peer, &len);
	assert_string_equal(inet_ntoa(peer.sin_addr), STACK_ADDR);
	kit_send(stack, "stack");
	kit_expect(got, "stack");
	close(got);
	close(stack);
	assert_int_equal(epoll_wait(ep, &event, 1, 0), 0);
	kernel = kit_connect("127.0.0.1", kit_port(listener));
	assert_int_equal(epoll_wait(ep, &event, 1, 5000), 1);
	len = sizeof(peer);
	got = accept(listener, (struct sockaddr *)&peer, &len);
	assert_string_equal(inet_ntoa(peer.sin_addr), "127.0.0.1");
	assert_false(fcntl(got, F_GETFL) & O_NONBLOCK);
	assert_false(fcntl(listener, F_GETFL) & O_NONBLOCK);
	kit_send(kernel, "kernel");
	kit_expect(got, "kernel");
	close(got);
	close(kernel);
	close(ep);
	close(listener);
}

static void accept_obeys_its_flags(void **state)
{
	int listener = kit_listen(STACK_ADDR, SOCK_NONBLOCK), fd, got;

	assert_errno(accept(listener, NULL, NULL), EAGAIN);
	fd = kit_connect(PEER_ADDR, kit_port(listener));
	kit_await(listener, POLLIN);
	got = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(got >= 0);
	assert_true(fcntl(got, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(got, F_GETFD) & FD_CLOEXEC);
	assert_errno(accept(got, NULL, NULL), EINVAL);
	assert_errno(accept4(listener, NULL, NULL, 0x12345), EINVAL);
	close(got);
	close(fd);
	close(listener);
}

static void the_kernel_arbitrates_ports(void **state)
{
	int listener = kit_listen(STACK_ADDR, 0), fd = socket(AF_INET, SOCK_STREAM, 0), value = 0;
	struct sockaddr_in in = kit_addr(STACK_ADDR, kit_port(listener)), elsewhere = kit_addr("198.51.100.1", 5555);
	socklen_t len = sizeof(value);

	assert_errno(bind(fd, (struct sockaddr *)&in, sizeof(in)), EADDRINUSE);
	assert_errno(bind(fd, (struct sockaddr *)&elsewhere, sizeof(elsewhere)), EADDRNOTAVAIL);
	assert_int_equal(getsockopt(listener, SOL_SOCKET, SO_ACCEPTCONN, &value, &len), 0);
	assert_int_equal(value, 1);
	close(listener);
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0); /* the port is free again at once */
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(listen(fd, 5), 0);
	close(fd);
}

static void a_shut_listener_fails_its_accept(void **state)
{
	int listener = kit_listen(STACK_ADDR, 0);

	assert_int_equal(shutdown(listener, SHUT_RD), 0);
	assert_errno(accept(listener, NULL, NULL), EINVAL);
	close(listener);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(refused_and_timed_out_are_told),
	cmocka_unit_test(a_non_blocking_connect_is_told_by_writability),
	cmocka_unit_test(a_failed_non_blocking_connect_is_told_by_so_error),
	cmocka_unit_test(a_connect_in_progress_says_so),
	cmocka_unit_test(a_socket_added_to_epoll_before_connect_moves),
	cmocka_unit_test(other_addresses_are_the_kernels),
	cmocka_unit_test(a_wildcard_listener_takes_clients_of_both),
	cmocka_unit_test(accept_obeys_its_flags),
	cmocka_unit_test(the_kernel_arbitrates_ports),
	cmocka_unit_test(a_shut_listener_fails_its_accept),
};

KIT_MAIN(tests, 1)
