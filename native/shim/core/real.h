/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The C library's own functions behind those we interpose. Everything inside the shim calls them as REAL(name)(...): a
 * bare call would come back to ourselves.
 */
#ifndef SHIM_REAL_H
#define SHIM_REAL_H

#include <ifaddrs.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#define REAL_CALLS(X)                                                                                     \
	X(int, socket, (int, int, int))                                                                   \
	X(int, socketpair, (int, int, int, int *))                                                        \
	X(int, bind, (int, const struct sockaddr *, socklen_t))                                           \
	X(int, listen, (int, int))                                                                        \
	X(int, accept, (int, struct sockaddr *, socklen_t *))                                             \
	X(int, accept4, (int, struct sockaddr *, socklen_t *, int))                                       \
	X(int, connect, (int, const struct sockaddr *, socklen_t))                                        \
	X(int, shutdown, (int, int))                                                                      \
	X(int, close, (int))                                                                              \
	X(int, close_range, (unsigned int, unsigned int, int))                                            \
	X(int, dup, (int))                                                                                \
	X(int, dup2, (int, int))                                                                          \
	X(int, dup3, (int, int, int))                                                                     \
	X(int, fcntl, (int, int, ...))                                                                    \
	X(int, ioctl, (int, unsigned long, ...))                                                          \
	X(ssize_t, read, (int, void *, size_t))                                                           \
	X(ssize_t, readv, (int, const struct iovec *, int))                                               \
	X(ssize_t, recv, (int, void *, size_t, int))                                                      \
	X(ssize_t, recvfrom, (int, void *, size_t, int, struct sockaddr *, socklen_t *))                  \
	X(ssize_t, recvmsg, (int, struct msghdr *, int))                                                  \
	X(int, recvmmsg, (int, struct mmsghdr *, unsigned int, int, struct timespec *))                   \
	X(ssize_t, write, (int, const void *, size_t))                                                    \
	X(ssize_t, writev, (int, const struct iovec *, int))                                              \
	X(ssize_t, send, (int, const void *, size_t, int))                                                \
	X(ssize_t, sendto, (int, const void *, size_t, int, const struct sockaddr *, socklen_t))          \
	X(ssize_t, sendmsg, (int, const struct msghdr *, int))                                            \
	X(int, sendmmsg, (int, struct mmsghdr *, unsigned int, int))                                      \
	X(ssize_t, sendfile, (int, int, off_t *, size_t))                                                 \
	X(ssize_t, splice, (int, off64_t *, int, off64_t *, size_t, unsigned int))                        \
	X(int, poll, (struct pollfd *, nfds_t, int))                                                      \
	X(int, ppoll, (struct pollfd *, nfds_t, const struct timespec *, const sigset_t *))               \
	X(int, select, (int, fd_set *, fd_set *, fd_set *, struct timeval *))                             \
	X(int, pselect, (int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *))   \
	X(int, epoll_create, (int))                                                                       \
	X(int, epoll_create1, (int))                                                                      \
	X(int, epoll_ctl, (int, int, int, struct epoll_event *))                                          \
	X(int, epoll_wait, (int, struct epoll_event *, int, int))                                         \
	X(int, epoll_pwait, (int, struct epoll_event *, int, int, const sigset_t *))                      \
	X(int, epoll_pwait2, (int, struct epoll_event *, int, const struct timespec *, const sigset_t *)) \
	X(int, getsockname, (int, struct sockaddr *, socklen_t *))                                        \
	X(int, getpeername, (int, struct sockaddr *, socklen_t *))                                        \
	X(int, getsockopt, (int, int, int, void *, socklen_t *))                                          \
	X(int, setsockopt, (int, int, int, const void *, socklen_t))                                      \
	X(int, prctl, (int, ...))                                                                         \
	X(int, chroot, (const char *))                                                                    \
	X(int, getifaddrs, (struct ifaddrs **))                                                           \
	X(void, freeifaddrs, (struct ifaddrs *))                                                          \
	X(pid_t, fork, (void))                                                                            \
	X(ssize_t, preadv2, (int, const struct iovec *, int, off_t, int))                                 \
	X(ssize_t, pwritev2, (int, const struct iovec *, int, off_t, int))                                \
	X(int, vdprintf, (int, const char *, va_list))                                                    \
	X(int, execve, (const char *, char *const[], char *const[]))                                      \
	X(int, execveat, (int, const char *, char *const[], char *const[], int))                          \
	X(int, execvpe, (const char *, char *const[], char *const[]))                                     \
	X(int, fexecve, (int, char *const[], char *const[]))                                              \
	X(int, sigaction, (int, const struct sigaction *, struct sigaction *))                            \
	X(int, siginterrupt, (int, int))                                                                  \
	X(int, pthread_setcanceltype, (int, int *))                                                       \
	X(FILE *, fdopen, (int, const char *))                                                            \
	X(int, fclose, (FILE *))                                                                          \
	X(long, syscall, (long, ...))

struct real_calls {
#define X(ret, name, args) ret(*name) args;
	REAL_CALLS(X)
#undef X
	bool ready; /* set last; resolving twice is harmless */
};

extern struct real_calls real;

/* Resolves them all; called on first use, from any thread, also before our constructor. */
void real_resolve(void);

/*
 * A system call that is no cancellation point: what is called with a lock held must not be where a cancelled thread ends.
 * As syscall(): -1 and errno.
 */
#define UNCANCELLED(name, ...) REAL(syscall)(SYS_##name, __VA_ARGS__)

#define REAL(name) ((__builtin_expect(!real.ready, 0) ? real_resolve() : (void)0), real.name)

#endif
