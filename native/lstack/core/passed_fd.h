/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Descriptors that came from another process. Closing the last descriptor of a TCP socket with SO_LINGER waits until all is sent;
 * so does closing a UNIX socket in whose queue such a descriptor lies unread, and reading a message with less room than it
 * brings. Here no close waits: queues are emptied first, lingering is switched off, and what is no socket is for the closer.
 */
#ifndef LSTACK_PASSED_FD_H
#define LSTACK_PASSED_FD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define PASSED_FDS_MAX 253u /* SCM_MAX_FD: what one message brings at most */

/* Room for all descriptors of a message and for what else the kernel may tell of its sender. */
union passed_fds {
	char buf[CMSG_SPACE(PASSED_FDS_MAX * sizeof(int)) + 128];
	struct cmsghdr align;
};
#define PASSED_FDS_ROOM (sizeof(union passed_fds) / sizeof(int))

/*
 * Closes one that user `whose` passed, which may be a socket of the worker's own that others send to; -1: there is none. A UNIX
 * socket is shut down for reading first, also if other processes have it. What is too much for one turn is closed by passed_fd_look; what is
 * no socket, by the closer.
 */
void passed_fd_close(int fd, uid_t whose);

/* Once a turn: goes on with what was left. */
void passed_fd_look(void);

/* True if something is left. */
bool passed_fd_pending(void);

#endif
