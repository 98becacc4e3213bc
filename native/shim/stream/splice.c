/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/real.h"
#include "core/sock.h"
#include "stream/splice.h"
#include "stream/stream.h"

bool stream_of(int fd)
{
	struct sock *s = fd_sock(fd);

	return s && sock_kind(s) == KIND_STREAM;
}

/* 0, or why it cannot be spliced. */
static int check_pipe(int fd, const off_t *off)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISFIFO(st.st_mode))
		return -EINVAL;
	return off ? -ESPIPE : 0;
}

static bool wont_wait(int pipe_fd, unsigned int flags)
{
	return flags & SPLICE_F_NONBLOCK || REAL(fcntl)(pipe_fd, F_GETFL) & O_NONBLOCK;
}

/* A write of at most PIPE_BUF bytes will not block: 0. -EAGAIN, if it must not wait for that. */
static int wait_pipe(int pipe_fd, short events, bool wait)
{
	struct pollfd pfd = { .fd = pipe_fd, .events = events };
	int n = REAL(poll)(&pfd, 1, wait ? -1 : 0);

	return n < 0 ? -errno : n ? 0 : -EAGAIN;
}

ssize_t splice_from_stream(int in_fd, int pipe_fd, const off_t *pipe_off, size_t len, unsigned int flags)
{
	bool wait = !wont_wait(pipe_fd, flags);
	char bytes[PIPE_BUF];
	size_t done = 0;
	ssize_t n = check_pipe(pipe_fd, pipe_off);

	while (!n && done < len) {
		struct iovec iov = { .iov_base = bytes, .iov_len = len - done < PIPE_BUF ? len - done : PIPE_BUF };
		struct sock *s;

		/* Room first, then bytes: what was taken from the connection could not be put back. */
		n = wait_pipe(pipe_fd, POLLOUT, wait && !done);
		if (n)
			break;
		s = sock_enter_stream(in_fd, false);
		if (!s) {
			n = -EBADF; /* another thread has closed it */
			break;
		}
		n = stream_recv(s, &iov, 1, done || flags & SPLICE_F_NONBLOCK ? MSG_DONTWAIT : 0);
		if (n <= 0)
			break;
		n = REAL(write)(pipe_fd, bytes, (size_t)n);
		if (n < 0) {
			n = -errno; /* nobody reads the pipe any more: the bytes have nowhere to go */
			break;
		}
		done += (size_t)n;
		n = 0;
	}
	return done ? (ssize_t)done : n;
}

ssize_t splice_to_stream(int pipe_fd, const off_t *pipe_off, int out_fd, size_t len, unsigned int flags)
{
	int err = check_pipe(pipe_fd, pipe_off), there = 0;
	struct sock *s;

	if (!err && len)
		err = wait_pipe(pipe_fd, POLLIN, !wont_wait(pipe_fd, flags));
	if (!err && REAL(ioctl)(pipe_fd, FIONREAD, &there))
		err = -errno;
	if (err || !there || !len)
		return err;
	s = sock_enter_stream(out_fd, true);
	return s ? stream_sendfile(s, pipe_fd, NULL, len < (size_t)there ? len : (size_t)there) : -EBADF;
}
