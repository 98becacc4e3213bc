/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Processes, and system calls by number. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "api/api.h"
#include "core/real.h"
#include "core/shim.h"
#include "process/fork.h"
#include "worker/group.h"

/*
 * A child of vfork runs in the parent's memory, where its close() and dup2() would be taken for the parent's. A fork is
 * what POSIX allows instead.
 */
EXPORT pid_t vfork(void)
{
	return REAL(fork)();
}

/* A child that is made past the C library, with memory of its own, is one as after a fork (vsftpd). */
static long clone_by_number(long number, long flags, long b, long c, long d, long e)
{
	bool fork_like = shim_active() && !(flags & CLONE_VM) && !b;
	long child;
	int err;

	if (!fork_like)
		return REAL(syscall)(number, flags, b, c, d, e);
	fork_begins();
	child = REAL(syscall)(number, flags, b, c, d, e);
	err = errno;
	fork_ends(child);
	errno = err;
	return child;
}

/* Programs that avoid the C library's wrappers mean the same calls. */
EXPORT long syscall(long number, ...)
{
	long a, b, c, d, e, f;
	va_list ap;

	va_start(ap, number);
	a = va_arg(ap, long);
	b = va_arg(ap, long);
	c = va_arg(ap, long);
	d = va_arg(ap, long);
	e = va_arg(ap, long);
	f = va_arg(ap, long);
	va_end(ap);
	int fd = (int)a;

	switch (number) {
	case SYS_socket:
		return socket(fd, (int)b, (int)c);
	case SYS_bind:
		return bind(fd, (const struct sockaddr *)b, (socklen_t)c);
	case SYS_listen:
		return listen(fd, (int)b);
	case SYS_accept4:
		return accept4(fd, (struct sockaddr *)b, (socklen_t *)c, (int)d);
	case SYS_connect:
		return connect(fd, (const struct sockaddr *)b, (socklen_t)c);
	case SYS_shutdown:
		return shutdown(fd, (int)b);
	case SYS_close:
		return close(fd);
	case SYS_close_range:
		return close_range((unsigned int)a, (unsigned int)b, (int)c);
	case SYS_read:
		return read(fd, (void *)b, (size_t)c);
	case SYS_readv:
		return readv(fd, (const struct iovec *)b, (int)c);
	case SYS_recvfrom:
		return recvfrom(fd, (void *)b, (size_t)c, (int)d, (struct sockaddr *)e, (socklen_t *)f);
	case SYS_recvmsg:
		return recvmsg(fd, (struct msghdr *)b, (int)c);
	case SYS_write:
		return write(fd, (const void *)b, (size_t)c);
	case SYS_writev:
		return writev(fd, (const struct iovec *)b, (int)c);
	case SYS_sendto:
		return sendto(fd, (const void *)b, (size_t)c, (int)d, (const struct sockaddr *)e, (socklen_t)f);
	case SYS_sendmsg:
		return sendmsg(fd, (const struct msghdr *)b, (int)c);
	case SYS_preadv2: /* e is the offset's high half where longs are short */
		return preadv2(fd, (const struct iovec *)b, (int)c, (off_t)d, (int)f);
	case SYS_pwritev2:
		return pwritev2(fd, (const struct iovec *)b, (int)c, (off_t)d, (int)f);
	case SYS_recvmmsg:
		return recvmmsg(fd, (struct mmsghdr *)b, (unsigned int)c, (int)d, (struct timespec *)e);
	case SYS_sendmmsg:
		return sendmmsg(fd, (struct mmsghdr *)b, (unsigned int)c, (int)d);
	case SYS_splice:
		return splice(fd, (off64_t *)b, (int)c, (off64_t *)d, (size_t)e, (unsigned int)f);
	case SYS_ioctl:
		return ioctl(fd, (unsigned long)b, c);
	case SYS_sendfile:
		return sendfile(fd, (int)b, (off_t *)c, (size_t)d);
	case SYS_getsockname:
		return getsockname(fd, (struct sockaddr *)b, (socklen_t *)c);
	case SYS_getpeername:
		return getpeername(fd, (struct sockaddr *)b, (socklen_t *)c);
	case SYS_getsockopt:
		return getsockopt(fd, (int)b, (int)c, (void *)d, (socklen_t *)e);
	case SYS_setsockopt:
		return setsockopt(fd, (int)b, (int)c, (const void *)d, (socklen_t)e);
	case SYS_execve:
		return execve((const char *)a, (char *const *)b, (char *const *)c);
	case SYS_execveat:
		return execveat(fd, (const char *)b, (char *const *)c, (char *const *)d, (int)e);
	case SYS_seccomp:
		return api_seccomp((unsigned long)a, (unsigned long)b, (unsigned long)c);
	case SYS_accept:
		return accept(fd, (struct sockaddr *)b, (socklen_t *)c);
	case SYS_ppoll:
		return ppoll((struct pollfd *)a, (nfds_t)b, (const struct timespec *)c, (const sigset_t *)d);
	case SYS_pselect6: /* f: where the mask is, and its length */
		return pselect(fd, (fd_set *)b, (fd_set *)c, (fd_set *)d, (const struct timespec *)e,
		               f ? *(const sigset_t **)f : NULL);
	case SYS_clone:
		return clone_by_number(number, a, b, c, d, e);
	case SYS_dup:
		return dup(fd);
	case SYS_dup3:
		return dup3(fd, (int)b, (int)c);
	case SYS_fcntl:
		return fcntl(fd, (int)b, c);
	case SYS_epoll_create1:
		return epoll_create1(fd);
	case SYS_epoll_ctl:
		return epoll_ctl(fd, (int)b, (int)c, (struct epoll_event *)d);
	case SYS_epoll_pwait:
		return epoll_pwait(fd, (struct epoll_event *)b, (int)c, (int)d, (const sigset_t *)e);
	case SYS_epoll_pwait2:
		return epoll_pwait2(fd, (struct epoll_event *)b, (int)c, (const struct timespec *)d, (const sigset_t *)e);
#ifdef SYS_epoll_wait /* newer architectures have the general forms only */
	case SYS_epoll_wait:
		return epoll_wait(fd, (struct epoll_event *)b, (int)c, (int)d);
	case SYS_epoll_create:
		return epoll_create(fd);
	case SYS_select:
		return select(fd, (fd_set *)b, (fd_set *)c, (fd_set *)d, (struct timeval *)e);
	case SYS_dup2:
		return dup2(fd, (int)b);
	case SYS_poll:
		return poll((struct pollfd *)a, (nfds_t)b, (int)c);
	case SYS_fork:
	case SYS_vfork:
		return clone_by_number(SYS_clone, SIGCHLD, 0, 0, 0, 0);
#endif
	case SYS_io_uring_setup:
		/* Sets of sockets changed through a ring pass us by (libuv since 1.45); the caller does without. */
		if (group_on()) {
			errno = ENOSYS;
			return -1;
		}
		return REAL(syscall)(number, a, b, c, d, e, f);
	default:
		return REAL(syscall)(number, a, b, c, d, e, f);
	}
}
