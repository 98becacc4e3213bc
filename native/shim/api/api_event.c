/* SPDX-License-Identifier: MulanPSL-2.0 */
/* epoll, poll, select. */
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>

#include "api/api.h"
#include "wait/epoll.h"
#include "wait/epoll_set.h"
#include "core/fdtable.h"
#include "wait/poll_set.h"
#include "core/real.h"
#include "core/shim.h"

EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t room);
EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t room);
extern void __chk_fail(void) __attribute__((noreturn));

#define MS 1000000ll

static int64_t ns_of_ms(int ms)
{
	return ms < 0 ? -1 : ms * MS;
}

/* -1 = for ever, -2 = not a time. */
static int64_t ns_of_timespec(const struct timespec *ts)
{
	if (!ts)
		return -1;
	if (ts->tv_sec < 0 || ts->tv_nsec < 0 || ts->tv_nsec >= 1000000000)
		return -2;
	return ts->tv_sec > 1000000000 ? -1 : (int64_t)ts->tv_sec * 1000000000 + ts->tv_nsec;
}

/* ------------------------------------------------------------------ epoll */

EXPORT int epoll_create(int size)
{
	int fd = REAL(epoll_create)(size);

	if (fd >= 0 && !shim.disabled)
		epoll_opened(fd);
	return fd;
}

EXPORT int epoll_create1(int flags)
{
	int fd = REAL(epoll_create1)(flags);

	if (fd >= 0 && !shim.disabled)
		epoll_opened(fd);
	return fd;
}

EXPORT int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	struct epoll *ep = fd_epoll(epfd);
	int err;

	if (fd_is_own(fd)) {
		errno = EBADF;
		return -1;
	}
	if (!ep)
		return REAL(epoll_ctl)(epfd, op, fd, event);
	err = epoll_change(ep, epfd, op, fd, event);
	return (int)api_return(err);
}

EXPORT int epoll_wait(int epfd, struct epoll_event *events, int most, int timeout)
{
	struct epoll *ep = fd_epoll(epfd);

	if (!ep || shim.disabled)
		return REAL(epoll_wait)(epfd, events, most, timeout);
	return (int)api_return(epoll_wait_for(ep, epfd, events, most, ns_of_ms(timeout), NULL));
}

EXPORT int epoll_pwait(int epfd, struct epoll_event *events, int most, int timeout, const sigset_t *mask)
{
	struct epoll *ep = fd_epoll(epfd);

	if (!ep || shim.disabled)
		return REAL(epoll_pwait)(epfd, events, most, timeout, mask);
	return (int)api_return(epoll_wait_for(ep, epfd, events, most, ns_of_ms(timeout), mask));
}

EXPORT int epoll_pwait2(int epfd, struct epoll_event *events, int most, const struct timespec *timeout, const sigset_t *mask)
{
	struct epoll *ep = fd_epoll(epfd);

	if (!ep || shim.disabled || ns_of_timespec(timeout) == -2)
		return REAL(epoll_pwait2)(epfd, events, most, timeout, mask);
	return (int)api_return(epoll_wait_for(ep, epfd, events, most, ns_of_timespec(timeout), mask));
}

/* ------------------------------------------------------------------ poll */

EXPORT int poll(struct pollfd *fds, nfds_t count, int timeout)
{
	if (!poll_concerns(fds, count))
		return REAL(poll)(fds, count, timeout);
	return (int)api_return(poll_for(fds, count, ns_of_ms(timeout), NULL));
}

EXPORT int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	if (!poll_concerns(fds, count) || ns_of_timespec(timeout) == -2)
		return REAL(ppoll)(fds, count, timeout, mask);
	return (int)api_return(poll_for(fds, count, ns_of_timespec(timeout), mask));
}

EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t room)
{
	if (count > room / sizeof(*fds))
		__chk_fail();
	return poll(fds, count, timeout);
}

EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t room)
{
	if (count > room / sizeof(*fds))
		__chk_fail();
	return ppoll(fds, count, timeout, mask);
}

/* ------------------------------------------------------------------ select */

EXPORT int select(int count, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, struct timeval *timeout)
{
	int64_t ns = -1;
	uint64_t began;
	int ready;

	if (!select_concerns(count, readfds, writefds, exceptfds) ||
	    (timeout && (timeout->tv_sec < 0 || timeout->tv_usec < 0)))
		return REAL(select)(count, readfds, writefds, exceptfds, timeout);
	if (timeout && timeout->tv_sec <= 1000000000)
		ns = (int64_t)timeout->tv_sec * 1000000000 + timeout->tv_usec * 1000;
	began = now_ns();
	ready = select_for(count, readfds, writefds, exceptfds, ns, NULL);
	if (timeout && ns >= 0) {
		/* Linux leaves what is left of the time. */
		int64_t left = ns - (int64_t)(now_ns() - began);

		timeout->tv_sec = left > 0 ? left / 1000000000 : 0;
		timeout->tv_usec = left > 0 ? left / 1000 % 1000000 : 0;
	}
	return (int)api_return(ready);
}

EXPORT int pselect(int count, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, const struct timespec *timeout,
                   const sigset_t *mask)
{
	if (!select_concerns(count, readfds, writefds, exceptfds) || ns_of_timespec(timeout) == -2)
		return REAL(pselect)(count, readfds, writefds, exceptfds, timeout, mask);
	return (int)api_return(select_for(count, readfds, writefds, exceptfds, ns_of_timespec(timeout), mask));
}
