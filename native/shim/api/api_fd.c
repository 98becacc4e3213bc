/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Descriptors: close, dup, fcntl, ioctl, and stdio streams over them. */
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "api/api.h"
#include "udp/dgram.h"
#include "udp/dgram_message.h"
#include "wait/epoll.h"
#include "wait/epoll_set.h"
#include "core/real.h"
#include "core/sock.h"
#include "stream/stream.h"

EXPORT int close(int fd)
{
	return fd_word(fd) ? (int)api_return(fd_close(fd)) : REAL(close)(fd);
}

EXPORT int close_range(unsigned int first, unsigned int last, int flags)
{
	return (int)api_return(fd_close_range(first, last, flags));
}

EXPORT void closefrom(int first)
{
	(void)fd_close_range(first < 0 ? 0 : (unsigned int)first, ~0u, 0);
}

/* ------------------------------------------------------------------ dup */

/* What `fd` stands for, with a reference for one more descriptor; 0 = the kernel's, or a reason, which is counted once. */
static uintptr_t take_word(int fd)
{
	uintptr_t word = fd_word(fd);
	struct sock *s;

	if ((word & 3) == FD_EPOLL) {
		struct epoll *ep = epoll_take(fd);

		return ep ? (uintptr_t)ep | FD_EPOLL : 0;
	}
	if (!word || (word & 3) != FD_SOCK)
		return 0;
	s = sock_enter(fd, false);
	if (!s)
		return 0;
	sock_get(s);
	lock_give(&s->rx);
	return (uintptr_t)s;
}

static void give_word(uintptr_t word)
{
	if (word && (word & 3) == FD_SOCK)
		sock_put((struct sock *)word);
	else if (word)
		epoll_put((struct epoll *)(word & ~(uintptr_t)3));
}

/* `newfd` came back from the kernel as a duplicate. */
static int enter_duplicate(int newfd, uintptr_t word)
{
	if (newfd < 0) {
		int err = errno;

		give_word(word);
		errno = err;
		return -1;
	}
	if (word || fd_word(newfd)) {
		fd_forget(newfd);
		fd_put(newfd, word);
	}
	return newfd;
}

EXPORT int dup(int fd)
{
	uintptr_t word = take_word(fd);

	return enter_duplicate(REAL(dup)(fd), word);
}

static int duplicate_onto(int fd, int newfd, int flags, bool three)
{
	uintptr_t word;
	int got;

	if (fd_is_own(fd) || REAL(fcntl)(fd, F_GETFD) < 0) {
		errno = EBADF;
		return -1;
	}
	if (fd == newfd || newfd < 0)
		return three ? REAL(dup3)(fd, newfd, flags) : REAL(dup2)(fd, newfd);
	word = take_word(fd);
	if (fd_word(newfd))
		fd_forget(newfd);
	got = three ? REAL(dup3)(fd, newfd, flags) : REAL(dup2)(fd, newfd);
	if (got >= 0 && word)
		fd_put(got, word);
	else if (got < 0)
		give_word(word);
	return got;
}

EXPORT int dup2(int fd, int newfd)
{
	return duplicate_onto(fd, newfd, 0, false);
}

EXPORT int dup3(int fd, int newfd, int flags)
{
	return duplicate_onto(fd, newfd, flags, true);
}

/* ------------------------------------------------------------------ fcntl, ioctl */

static int do_fcntl(int fd, int cmd, void *arg)
{
	struct sock *s = fd_sock(fd);
	int r;

	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC) {
		uintptr_t word = take_word(fd);

		return enter_duplicate(REAL(fcntl)(fd, cmd, arg), word);
	}
	if (s && sock_kind(s) != KIND_FRESH &&
	    (cmd == F_SETOWN || cmd == F_SETOWN_EX || cmd == F_SETSIG || (cmd == F_SETFL && (int)(intptr_t)arg & O_ASYNC))) {
		errno = EINVAL; /* the stack sends no SIGIO; and what is under an accepted socket is under all of them */
		return -1;
	}
	if (!s || (cmd != F_GETFL && cmd != F_SETFL)) {
		if (fd_is_own(fd)) {
			errno = EBADF;
			return -1;
		}
		return REAL(fcntl)(fd, cmd, arg);
	}
	s = sock_enter(fd, false);
	if (!s)
		return REAL(fcntl)(fd, cmd, arg);
	if (sock_kind(s) == KIND_STREAM)
		sock_ready(s);
	if (cmd == F_GETFL) {
		r = REAL(fcntl)(fd, cmd);
		if (r >= 0)
			r = (r & ~O_NONBLOCK) | (sock_nonblock(s) ? O_NONBLOCK : 0);
	} else {
		/* The kernel's flag is the program's only as long as the path is open: later it is ours, or the template's. */
		r = sock_kind(s) == KIND_FRESH ? REAL(fcntl)(fd, cmd, arg) : 0;
		if (!r)
			sock_set_nonblock(s, (int)(intptr_t)arg & O_NONBLOCK);
	}
	lock_give(&s->rx);
	return r;
}

EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return do_fcntl(fd, cmd, arg);
}

EXPORT int fcntl64(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return do_fcntl(fd, cmd, arg);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	struct sock *s;
	va_list ap;
	void *arg;
	int r = 0;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if ((request == FIOASYNC || request == FIOSETOWN || request == SIOCSPGRP) && fd_sock(fd) &&
	    sock_kind(fd_sock(fd)) != KIND_FRESH) {
		errno = EINVAL; /* as fcntl */
		return -1;
	}
	if (request != FIONBIO && request != FIONREAD && request != SIOCOUTQ && request != SIOCOUTQNSD)
		return REAL(ioctl)(fd, request, arg);
	s = sock_enter(fd, false);
	if (!s)
		return REAL(ioctl)(fd, request, arg);
	if (sock_kind(s) == KIND_STREAM)
		sock_ready(s);
	if (request == FIONBIO) {
		if (sock_kind(s) == KIND_FRESH)
			r = REAL(ioctl)(fd, request, arg);
		if (!r)
			sock_set_nonblock(s, *(int *)arg != 0);
	} else if (sock_kind(s) == KIND_DGRAM && request == FIONREAD && dgram_next(s) >= 0) {
		*(int *)arg = dgram_next(s);
	} else if (sock_kind(s) != KIND_STREAM) {
		r = REAL(ioctl)(fd, request, arg);
	} else {
		*(int *)arg = request == FIONREAD ? stream_unread(s) : stream_unsent(s);
	}
	lock_give(&s->rx);
	return r;
}

/* ------------------------------------------------------------------ stdio */

static ssize_t cookie_read(void *cookie, char *buf, size_t len)
{
	return read((int)(intptr_t)cookie, buf, len);
}

static ssize_t cookie_write(void *cookie, const char *buf, size_t len)
{
	ssize_t n = write((int)(intptr_t)cookie, buf, len);

	return n < 0 ? 0 : n; /* stdio's convention */
}

static int cookie_close(void *cookie)
{
	return close((int)(intptr_t)cookie);
}

/* The C library's streams make their calls inside it, where we are not: a stream over our socket gets ours. */
EXPORT FILE *fdopen(int fd, const char *mode)
{
	static const cookie_io_functions_t calls = {
		.read = cookie_read,
		.write = cookie_write,
		.close = cookie_close,
	};
	FILE *file;

	if (!fd_sock(fd))
		return REAL(fdopen)(fd, mode);
	file = fopencookie((void *)(intptr_t)fd, mode, calls);
	if (file)
		file->_fileno = fd; /* for fileno() */
	return file;
}

static void cover(FILE **file, int fd, const char *mode)
{
	FILE *covered = fd_sock(fd) && *file && fileno(*file) == fd ? fdopen(fd, mode) : NULL;

	if (!covered)
		return;
	if (fd == STDERR_FILENO)
		setvbuf(covered, NULL, _IONBF, 0);
	*file = covered;
}

void api_cover_stdio(void)
{
	cover(&stdin, STDIN_FILENO, "r");
	cover(&stdout, STDOUT_FILENO, "w");
	cover(&stderr, STDERR_FILENO, "w");
}

EXPORT int fclose(FILE *file)
{
	int fd = fileno(file); /* NULL is not allowed */

	/* Closes a socket of the kernel's behind our back: what is counted of it must go. */
	if (fd >= 0 && (fd_word(fd) & 3) == FD_KERNEL)
		fd_forget(fd);
	return REAL(fclose)(file);
}
