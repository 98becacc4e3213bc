/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Datagrams: which path, what the program hears, and what two processes that share a socket see. */
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "kit.h"

static int open_bound(const char *address, uint16_t *port)
{
	struct sockaddr_in in = kit_addr(address, 0);
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	*port = ntohs(in.sin_port);
	return fd;
}

static ssize_t send_to(int fd, const char *address, uint16_t port, const void *data, size_t len, int flags)
{
	struct sockaddr_in in = kit_addr(address, port);

	return sendto(fd, data, len, flags, (struct sockaddr *)&in, sizeof(in));
}

static void an_echo_comes_back_with_its_sender(void **state)
{
	struct sockaddr_in from = { 0 };
	socklen_t len = sizeof(from);
	uint16_t port;
	char buf[16];
	int fd = open_bound(STACK_ADDR, &port);

	assert_int_equal(send_to(fd, PEER_ADDR, 7, "hello", 5, 0), 5);
	assert_int_equal(recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len), 5);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(ntohs(from.sin_port), 7);
	assert_int_equal(len, sizeof(from));
	close(fd);
}

static void boundaries_peeks_and_truncation(void **state)
{
	struct iovec iov;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	uint16_t port;
	char buf[16];
	int fd = open_bound(STACK_ADDR, &port);

	assert_int_equal(send_to(fd, PEER_ADDR, 7, "abcdef", 6, 0), 6);
	assert_int_equal(send_to(fd, PEER_ADDR, 7, "", 0, 0), 0);
	assert_int_equal(send_to(fd, PEER_ADDR, 7, "xy", 2, 0), 2);
	assert_int_equal(recv(fd, buf, 3, MSG_PEEK | MSG_TRUNC), 6);
	iov = (struct iovec){ buf, 3 };
	assert_int_equal(recvmsg(fd, &msg, 0), 3);
	assert_true(msg.msg_flags & MSG_TRUNC);
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), 0);
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), 2);
	assert_errno(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), EAGAIN);
	close(fd);
}

static void an_icmp_error_is_told_once(void **state)
{
	struct sockaddr_in in = kit_addr(PEER_ADDR, 1);
	int error = 0, fd = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t len = sizeof(error);
	char c;

	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(send(fd, "x", 1, 0), 1);
	assert_true(kit_await(fd, POLLERR) & POLLERR);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
	assert_int_equal(error, ECONNREFUSED);
	assert_errno(recv(fd, &c, 1, MSG_DONTWAIT), EAGAIN);
	assert_int_equal(send(fd, "x", 1, 0), 1);
	assert_true(kit_await(fd, POLLERR) & POLLERR);
	assert_errno(recv(fd, &c, 1, 0), ECONNREFUSED);
	close(fd);
}

static void a_full_fifo_is_not_writable(void **state)
{
	static char data[8000];
	uint16_t port;
	int fd = open_bound(STACK_ADDR, &port), sent = 0;

	while (send_to(fd, PEER_ADDR, 2, data, sizeof(data), MSG_DONTWAIT) == (ssize_t)sizeof(data))
		assert_true(++sent < 100);
	assert_int_equal(errno, EAGAIN);
	assert_true(sent > 4);
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	assert_int_equal(poll(&p, 1, 0), 0);
	close(fd);
}

static void what_the_stack_does_not_have_is_the_kernels(void **state)
{
	struct sockaddr_in in = kit_addr(STACK_ADDR, 0);
	uint16_t port;
	int on = 1, fd = socket(AF_INET, SOCK_DGRAM, 0), bound = open_bound(STACK_ADDR, &port);

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)), 0);
	/* The kernel's from here on, and no interface need have the address. */
	assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)), 0); /* for good */
	assert_errno(setsockopt(bound, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)), ENOPROTOOPT);
	close(bound);
	close(fd);
}

static void a_socket_on_any_address_hears_both(void **state)
{
	uint16_t any_port, port;
	int any = open_bound("0.0.0.0", &any_port), other = open_bound(STACK_ADDR, &port);
	int plain = socket(AF_INET, SOCK_DGRAM, 0);
	char buf[16];

	assert_int_equal(send_to(other, STACK_ADDR, any_port, "stack", 5, 0), 5);
	assert_int_equal(recv(any, buf, sizeof(buf), 0), 5);
	assert_int_equal(send_to(plain, "127.0.0.1", any_port, "kernel", 6, 0), 6);
	assert_int_equal(recv(any, buf, sizeof(buf), 0), 6);
	close(plain);
	close(other);
	close(any);
}

static void a_child_shares_it(void **state)
{
	uint16_t port;
	int fd = open_bound(STACK_ADDR, &port), status;
	char buf[16];
	pid_t pid = fork();

	if (!pid) {
		bool fine = send_to(fd, PEER_ADDR, 7, "child", 5, 0) == 5 && recv(fd, buf, sizeof(buf), 0) == 5;

		_exit(fine ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(send_to(fd, PEER_ADDR, 7, "parent", 6, 0), 6);
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), 6);
	close(fd);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(an_echo_comes_back_with_its_sender),
	cmocka_unit_test(boundaries_peeks_and_truncation),
	cmocka_unit_test(an_icmp_error_is_told_once),
	cmocka_unit_test(a_full_fifo_is_not_writable),
	cmocka_unit_test(what_the_stack_does_not_have_is_the_kernels),
	cmocka_unit_test(a_socket_on_any_address_hears_both),
	cmocka_unit_test(a_child_shares_it),
};

KIT_MAIN(tests, 1)
