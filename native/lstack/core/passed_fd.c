/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "core/passed_fd.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <gazelle/message.h>

#include "core/closer.h"

#define STEPS_MAX 2048u /* reads and closes in a turn: about a millisecond */
#define LEFT_MAX 65536u /* descriptors that wait for a later turn: more than the worker may have */

/* The worker has one thread. The last of them is the next to be looked at, so that sockets within sockets do not pile up. */
static struct {
	struct passed {
		int fd;
		uid_t whose;
	} fd[LEFT_MAX];
	uint32_t count;
	uint32_t held;    /* the first so many wait for the closer */
	uint32_t waiting; /* what the closer had to close when we looked last */
	uint32_t steps;   /* in this turn */
} left;

static int option(int fd, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) ? -1 : value;
}

static void put(int fd, uid_t whose)
{
	if (left.count < LEFT_MAX)
		left.fd[left.count++] = (struct passed){ fd, whose };
	else
		closer_take(fd, whose);
}

/* One message off the queue, its descriptors to the others that wait. False: the queue is empty. */
static bool read_one_away(int fd, uid_t whose)
{
	static char bytes[65536];
	struct iovec iov = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	union passed_fds control;
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control)
	};
	ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fds[PASSED_FDS_ROOM];
	uint32_t count;

	if (n < 0) /* that the other end was closed before it had read all is told before what lies here is given out */
		return errno == ECONNRESET || errno == EINTR;
	count = gz_fds_take(&msg, fds, PASSED_FDS_ROOM);
	for (uint32_t i = 0; i < count; i++)
		put(fds[i], whose);
	/* An empty message has its sender's credentials, the end has none; of a stream it has some, but that has no empty messages. */
	return n > 0 || (msg.msg_controllen > 0 && option(fd, SO_TYPE) != SOCK_STREAM);
}

/* True if nothing is left in it. */
static bool empty_one_step(int fd, uid_t whose)
{
	int on = 1, accepted;

	(void)shutdown(fd, SHUT_RD); /* from now on nothing can be sent to it, and accept() does not wait */
	if (option(fd, SO_ACCEPTCONN) == 1) {
		accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (accepted >= 0)
			put(accepted, whose);
		return accepted < 0;
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	return !read_one_away(fd, whose);
}

static void close_one(struct passed passed)
{
	const struct linger never = { .l_onoff = 0 };
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	int fd = passed.fd;

	if (option(fd, SO_DOMAIN) < 0) {
		closer_take(fd, passed.whose);
		return;
	}
	/* Of one that is not connected the option is the process's, which may use the socket on. */
	if (!getpeername(fd, (struct sockaddr *)&peer, &len))
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &never, sizeof(never));
	close(fd);
}

/* True if there may be more in it, which is not read while the closer is held up by its user: it would be for the closer, too. */
static bool is_full(struct passed passed)
{
	return option(passed.fd, SO_DOMAIN) == AF_UNIX &&
	       (closer_is_held_by(passed.whose) || !empty_one_step(passed.fd, passed.whose));
}

/* Those of users who hold the closer up stay where they are, below `held`. */
static void go_on(void)
{
	while (left.count > left.held && left.steps < STEPS_MAX) {
		uint32_t last = left.count - 1;
		struct passed passed = left.fd[last];

		left.steps++;
		if (is_full(passed)) {
			if (closer_is_held_by(passed.whose)) {
				left.fd[last] = left.fd[left.held];
				left.fd[left.held++] = passed;
			}
			continue;
		}
		left.fd[last] = left.fd[--left.count];
		close_one(passed);
	}
}

void passed_fd_close(int fd, uid_t whose)
{
	if (fd < 0)
		return;
	put(fd, whose);
	go_on();
}

void passed_fd_look(void)
{
	uint32_t waiting = closer_waiting();

	left.steps = 0;
	if (waiting < left.waiting || !waiting)
		left.held = 0; /* the closer has closed some since we looked last */
	left.waiting = waiting;
	go_on();
}

bool passed_fd_pending(void)
{
	return left.count > left.held;
}
