/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Reading and writing through the stack, as a program sees it. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "kit.h"

#define BULK (8u << 20)

static void bytes_go_both_ways(void **state)
{
	int fd[2];

	kit_pair(fd);
	kit_send(fd[0], "question");
	kit_expect(fd[1], "question");
	kit_send(fd[1], "answer");
	kit_expect(fd[0], "answer");
	close(fd[0]);
	kit_expect_eof(fd[1]);
	close(fd[1]);
}

static void names_are_the_connections(void **state)
{
	struct sockaddr_in a, b;
	socklen_t len = sizeof(a);
	int fd[2];

	kit_pair(fd);
	assert_int_equal(getpeername(fd[0], (struct sockaddr *)&a, &len), 0);
	assert_string_equal(inet_ntoa(a.sin_addr), PEER_ADDR);
	assert_int_equal(getsockname(fd[0], (struct sockaddr *)&b, &len), 0);
	assert_string_equal(inet_ntoa(b.sin_addr), STACK_ADDR);
	assert_int_equal(getpeername(fd[1], (struct sockaddr *)&a, &len), 0);
	assert_int_equal(a.sin_port, b.sin_port);
	len = 4;
	assert_int_equal(getpeername(fd[1], (struct sockaddr *)&a, &len), 0);
	assert_int_equal(len, sizeof(a));
	close(fd[0]);
	close(fd[1]);
}

static void half_closed_connections_still_receive(void **state)
{
	int fd[2];

	kit_pair(fd);
	kit_send(fd[0], "last");
	assert_int_equal(shutdown(fd[0], SHUT_WR), 0);
	kit_expect(fd[1], "last");
	kit_expect_eof(fd[1]);
	assert_true(kit_await(fd[1], POLLIN | POLLRDHUP) & POLLRDHUP);
	kit_send(fd[1], "late");
	kit_expect(fd[0], "late");
	assert_errno(send(fd[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	close(fd[0]);
	close(fd[1]);
}

static volatile sig_atomic_t pipes;

static void on_pipe(int sig)
{
	pipes += sig == SIGPIPE;
}

static void writing_after_shutdown_raises_sigpipe(void **state)
{
	int fd[2];

	kit_pair(fd);
	signal(SIGPIPE, on_pipe);
	shutdown(fd[0], SHUT_WR);
	assert_errno(write(fd[0], "x", 1), EPIPE);
	assert_int_equal(pipes, 1);
	assert_errno(send(fd[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	assert_int_equal(pipes, 1);
	signal(SIGPIPE, SIG_DFL);
	close(fd[0]);
	close(fd[1]);
}

static void a_reset_is_told_once_then_it_is_the_end(void **state)
{
	struct linger now = { .l_onoff = 1 };
	char c;
	int fd[2];

	kit_pair(fd);
	kit_send(fd[0], "before");
	kit_await(fd[1], POLLIN);
	assert_int_equal(setsockopt(fd[0], SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	close(fd[0]);
	while (!(kit_await(fd[1], POLLIN) & POLLERR))
		;
	kit_expect(fd[1], "before"); /* what came before the reset is not lost */
	assert_errno(read(fd[1], &c, 1), ECONNRESET);
	kit_expect_eof(fd[1]);
	assert_errno(send(fd[1], "x", 1, MSG_NOSIGNAL), EPIPE);
	close(fd[1]);
}

static void so_error_takes_the_error(void **state)
{
	struct linger now = { .l_onoff = 1 };
	int fd[2], error = 0;
	socklen_t len = sizeof(error);

	kit_pair(fd);
	setsockopt(fd[0], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd[0]);
	while (!(kit_await(fd[1], POLLIN) & POLLERR))
		;
	assert_int_equal(getsockopt(fd[1], SOL_SOCKET, SO_ERROR, &error, &len), 0);
	assert_int_equal(error, ECONNRESET);
	kit_expect_eof(fd[1]);
	close(fd[1]);
}

static void peek_leaves_the_bytes(void **state)
{
	char buf[8] = "";
	int fd[2], waiting = 0;

	kit_pair(fd);
	kit_send(fd[0], "abcdef");
	kit_await(fd[1], POLLIN);
	assert_int_equal(recv(fd[1], buf, 3, MSG_PEEK), 3);
	assert_memory_equal(buf, "abc", 3);
	assert_int_equal(ioctl(fd[1], FIONREAD, &waiting), 0);
	assert_int_equal(waiting, 6);
	assert_int_equal(recv(fd[1], NULL, 2, MSG_TRUNC), 2); /* thrown away */
	kit_expect(fd[1], "cdef");
	close(fd[0]);
	close(fd[1]);
}

static void vectors_are_filled_and_gathered(void **state)
{
	char a[3], b[1], c[8];
	struct iovec out[] = { { "one ", 4 }, { NULL, 0 }, { "two", 3 } };
	struct iovec in[] = { { a, 3 }, { b, 1 }, { NULL, 0 }, { c, 8 } };
	struct msghdr msg = { .msg_iov = out, .msg_iovlen = 3 };
	volatile int nonsense = -1; /* the compiler must not know */
	int fd[2];

	kit_pair(fd);
	assert_int_equal(sendmsg(fd[0], &msg, 0), 7);
	kit_await(fd[1], POLLIN);
	assert_int_equal(readv(fd[1], in, 4), 7);
	assert_memory_equal(a, "one", 3);
	assert_memory_equal(c, "two", 3);
	assert_errno(readv(fd[1], in, nonsense), EINVAL);
	close(fd[0]);
	close(fd[1]);
}

static void non_blocking_calls_do_not_wait(void **state)
{
	char c;
	int fd[2], on = 1, off = 0;

	kit_pair(fd);
	assert_errno(recv(fd[0], &c, 1, MSG_DONTWAIT), EAGAIN);
	assert_int_equal(fcntl(fd[0], F_SETFL, O_NONBLOCK), 0);
	assert_true(fcntl(fd[0], F_GETFL) & O_NONBLOCK);
	assert_errno(read(fd[0], &c, 1), EAGAIN);
	assert_int_equal(ioctl(fd[0], FIONBIO, &off), 0);
	assert_false(fcntl(fd[0], F_GETFL) & O_NONBLOCK);
	/* Both accepted sockets are duplicates of one kernel socket: the flag must be each one's own. */
	assert_int_equal(ioctl(fd[1], FIONBIO, &on), 0);
	assert_false(fcntl(fd[0], F_GETFL) & O_NONBLOCK);
	assert_errno(read(fd[1], &c, 1), EAGAIN);
	close(fd[0]);
	close(fd[1]);
}

static void a_receive_timeout_ends_the_wait(void **state)
{
	struct timeval tv = { .tv_usec = 30000 }, got;
	socklen_t len = sizeof(got);
	char c;
	int fd[2];

	kit_pair(fd);
	assert_int_equal(setsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	assert_int_equal(getsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &got, &len), 0);
	assert_int_equal(got.tv_usec, 30000);
	assert_errno(read(fd[0], &c, 1), EAGAIN);
	close(fd[0]);
	close(fd[1]);
}

static uint8_t pattern(uint32_t i)
{
	return (uint8_t)(i * 2654435761u >> 13);
}

static void *write_bulk(void *arg)
{
	int fd = *(int *)arg;
	uint8_t *data = malloc(BULK);

	for (uint32_t i = 0; i < BULK; i++)
		data[i] = pattern(i);
	for (uint32_t done = 0, step = 1; done < BULK; step = step * 3 % 300007 + 1) {
		ssize_t n = write(fd, data + done, BULK - done < step ? BULK - done : step);
		if (n < 0)
			break;
		done += (uint32_t)n;
	}
	shutdown(fd, SHUT_WR);
	free(data);
	return NULL;
}

static void bulk_arrives_whole_while_both_ends_block(void **state)
{
	static uint8_t buf[70000];
	pthread_t writer;
	uint32_t seen = 0, wrong = 0;
	ssize_t n;
	int fd[2];

	kit_pair(fd);
	assert_int_equal(pthread_create(&writer, NULL, write_bulk, &fd[0]), 0);
	while ((n = read(fd[1], buf, 1 + seen % sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++)
			wrong += buf[i] != pattern(seen++);
	pthread_join(writer, NULL);
	assert_int_equal(n, 0);
	assert_int_equal(seen, BULK);
	assert_int_equal(wrong, 0);
	close(fd[0]);
	close(fd[1]);
}

static void a_non_blocking_writer_is_told_when_there_is_room(void **state)
{
	static uint8_t buf[1 << 16];
	uint64_t sent = 0, read_back = 0;
	int fd[2], times_full = 0;

	kit_pair(fd);
	fcntl(fd[0], F_SETFL, O_NONBLOCK);
	fcntl(fd[1], F_SETFL, O_NONBLOCK);
	while (sent < BULK) {
		ssize_t n = write(fd[0], buf, sizeof(buf));
		if (n > 0) {
			sent += (uint64_t)n;
			continue;
		}
		assert_int_equal(errno, EAGAIN);
		times_full++;
		struct pollfd both[] = { { .fd = fd[0], .events = POLLOUT }, { .fd = fd[1], .events = POLLIN } };
		do {
			assert_true(poll(both, 2, 5000) > 0);
			while ((n = read(fd[1], buf, sizeof(buf))) > 0)
				read_back += (uint64_t)n;
		} while (!(both[0].revents & POLLOUT));
	}
	assert_true(times_full > 0);
	close(fd[0]);
	for (ssize_t n = 1; n;) {
		kit_await(fd[1], POLLIN);
		n = read(fd[1], buf, sizeof(buf));
		assert_true(n >= 0);
		read_back += (uint64_t)n;
	}
	assert_int_equal(read_back, sent);
	close(fd[1]);
}

static void sendfile_takes_no_byte_it_cannot_place(void **state)
{
	char name[] = "/tmp/gazelle-sendfile-XXXXXX";
	static uint8_t buf[1 << 16];
	off_t at = 100;
	uint32_t seen = 100, wrong = 0;
	int fd[2], file = mkstemp(name);

	unlink(name);
	for (uint32_t i = 0; i < 1u << 20; i++) {
		buf[i % sizeof(buf)] = pattern(i);
		if (i % sizeof(buf) == sizeof(buf) - 1)
			assert_int_equal(write(file, buf, sizeof(buf)), sizeof(buf));
	}
	kit_pair(fd);
	fcntl(fd[0], F_SETFL, O_NONBLOCK);
	while (at < 1 << 20) {
		off_t before = at;
		ssize_t n = sendfile(fd[0], file, &at, (size_t)((1 << 20) - at));

		if (n < 0) {
			assert_int_equal(errno, EAGAIN);
			assert_int_equal(at, before);
		} else {
			assert_int_equal(at, before + n);
		}
		while ((n = recv(fd[1], buf, sizeof(buf), MSG_DONTWAIT)) > 0)
			for (ssize_t i = 0; i < n; i++)
				wrong += buf[i] != pattern(seen++);
	}
	close(fd[0]);
	for (ssize_t n; (n = read(fd[1], buf, sizeof(buf))) > 0;)
		for (ssize_t i = 0; i < n; i++)
			wrong += buf[i] != pattern(seen++);
	assert_int_equal(seen, 1 << 20);
	assert_int_equal(wrong, 0);
	close(fd[1]);
	close(file);
}

static void stdio_over_a_socket_works(void **state)
{
	char line[32];
	FILE *a, *b;
	int fd[2];

	kit_pair(fd);
	a = fdopen(fd[0], "r+");
	b = fdopen(fd[1], "r+");
	assert_int_equal(fileno(a), fd[0]);
	fprintf(a, "hello %d\n", 42);
	fflush(a);
	assert_non_null(fgets(line, sizeof(line), b));
	assert_string_equal(line, "hello 42\n");
	fclose(a);
	assert_null(fgets(line, sizeof(line), b));
	fclose(b);
}

static void options_are_remembered_and_checked(void **state)
{
	int fd[2], value = 0, on = 1, bad = -1;
	socklen_t len = sizeof(value);

	kit_pair(fd);
	assert_int_equal(getsockopt(fd[1], IPPROTO_TCP, 1 /* TCP_NODELAY */, &value, &len), 0);
	assert_int_equal(value, 0);
	assert_int_equal(setsockopt(fd[1], IPPROTO_TCP, 1, &on, sizeof(on)), 0);
	assert_int_equal(getsockopt(fd[1], IPPROTO_TCP, 1, &value, &len), 0);
	assert_int_equal(value, 1);
	assert_errno(setsockopt(fd[1], IPPROTO_TCP, 4 /* TCP_KEEPIDLE */, &bad, sizeof(bad)), EINVAL);
	assert_errno(setsockopt(fd[1], IPPROTO_TCP, 31 /* TCP_ULP */, "tls", 3), ENOENT);
	assert_int_equal(getsockopt(fd[1], SOL_SOCKET, SO_TYPE, &value, &len), 0);
	assert_int_equal(value, SOCK_STREAM);
	assert_int_equal(getsockopt(fd[1], IPPROTO_TCP, 2 /* TCP_MAXSEG */, &value, &len), 0);
	assert_int_equal(value, 1448);
	close(fd[0]);
	close(fd[1]);
}

static void *blocked_sender(void *arg)
{
	return (void *)(intptr_t)send(*(int *)arg, "y", 1, MSG_NOSIGNAL);
}

static void a_bigger_send_buffer_lets_who_waits_go_on(void **state)
{
	static char bytes[65536];
	int fd[2], size = 4096;
	pthread_t thread;
	void *sent;

	kit_pair(fd);
	assert_int_equal(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	while (send(fd[0], bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(pthread_create(&thread, NULL, blocked_sender, &fd[0]), 0);
	poll(NULL, 0, 20);
	size = 4 << 20;
	assert_int_equal(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	assert_int_equal(pthread_join(thread, &sent), 0);
	assert_int_equal((intptr_t)sent, 1);
	close(fd[0]);
	close(fd[1]);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(bytes_go_both_ways),
	cmocka_unit_test(names_are_the_connections),
	cmocka_unit_test(half_closed_connections_still_receive),
	cmocka_unit_test(writing_after_shutdown_raises_sigpipe),
	cmocka_unit_test(a_reset_is_told_once_then_it_is_the_end),
	cmocka_unit_test(so_error_takes_the_error),
	cmocka_unit_test(peek_leaves_the_bytes),
	cmocka_unit_test(vectors_are_filled_and_gathered),
	cmocka_unit_test(non_blocking_calls_do_not_wait),
	cmocka_unit_test(a_receive_timeout_ends_the_wait),
	cmocka_unit_test(bulk_arrives_whole_while_both_ends_block),
	cmocka_unit_test(a_non_blocking_writer_is_told_when_there_is_room),
	cmocka_unit_test(sendfile_takes_no_byte_it_cannot_place),
	cmocka_unit_test(stdio_over_a_socket_works),
	cmocka_unit_test(options_are_remembered_and_checked),
	cmocka_unit_test(a_bigger_send_buffer_lets_who_waits_go_on),
};

KIT_MAIN(tests, 1)
