/* SPDX-License-Identifier: MulanPSL-2.0 */
/* poll and select over kernel and stack descriptors alike. */
#ifndef SHIM_POLL_SET_H
#define SHIM_POLL_SET_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/select.h>
#include <time.h>

/* True if the stack has a say in one of them; else the real call does. Not const: libc calls these arrays write-only. */
bool poll_concerns(struct pollfd *fds, nfds_t count);

/* ppoll(), timeout_ns < 0: for ever. Number of ready descriptors, or -errno. */
int poll_for(struct pollfd *fds, nfds_t count, int64_t timeout_ns, const sigset_t *sigmask);

/* The same for the sets of select(). */
bool select_concerns(int count, const fd_set *read, const fd_set *write, const fd_set *except);
int select_for(int count, fd_set *read, fd_set *write, fd_set *except, int64_t timeout_ns, const sigset_t *sigmask);

#endif
