/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Descriptors in messages of UNIX sockets (SCM_RIGHTS): those of the stack travel as packed sockets (passed_sock.h). */
#ifndef SHIM_FD_PASSING_H
#define SHIM_FD_PASSING_H

#include <stdbool.h>
#include <sys/socket.h>

/* True if it carries a descriptor of the stack. */
bool fd_passing_concerns(const struct msghdr *msg);

/* sendmsg() of such a message. EOPNOTSUPP: the program at the other end of `fd` is not attached, and could do nothing with it. */
ssize_t fd_passing_send(int fd, const struct msghdr *msg, int flags);

/*
 * What recvmsg() has brought: passed sockets become sockets. One that cannot be opened here, and what came after it, the program does not
 * get, as of files it may not have: MSG_CTRUNC.
 */
void fd_passing_received(struct msghdr *msg);

#endif
