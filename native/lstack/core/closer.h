/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A thread that closes what may be closed late. Closing a file of FUSE asks the program that serves it, which answers when it
 * likes; other descriptors that are no sockets may behave like that. A process may pass such a descriptor, and the worker has to
 * close it. How many of a user's descriptors wait is counted: from a user with too many the worker takes nothing more.
 */
#ifndef LSTACK_CLOSER_H
#define LSTACK_CLOSER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CLOSER_PER_USER 16u /* so many wait without a consequence */

/* What a process is told then. */
#define CLOSER_HELD "its user passed descriptors that cannot be closed"

/*
 * Starts the thread, which the list of system calls forbids later. When it has nothing left to close it wakes the worker's thread
 * from its wait at this epoll set, by an event that has CLOSER_MARK for its data and needs no answer. 0 or -errno.
 */
int closer_open(int epoll_fd);
extern char closer_mark;
#define CLOSER_MARK ((void *)&closer_mark)

/* Closes fd, which user `whose` passed, in the thread; at once if there is none. */
void closer_take(int fd, uid_t whose);

/* How many descriptors wait or are being closed. */
uint32_t closer_waiting(void);

/* True if so many of his wait that the worker takes nothing more from him. */
bool closer_is_held_by(uid_t whose);

#endif
