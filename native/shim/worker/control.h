/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Control sockets, to a worker or to the other program of a pair: messages with descriptors, and none of them ever waits. */
#ifndef SHIM_CONTROL_H
#define SHIM_CONTROL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <gazelle/control.h>

/* Sends a message with one descriptor (-1: none). 0 or -errno. a->post held, or the attachment is not public yet. */
int control_send(int control_fd, struct gz_message *message, int fd);

/*
 * One message if there is one. Returns 1, 0 (none yet) or -errno (EPIPE: the peer is gone). fds: room for GZ_WELCOME_FDS;
 * *count is set, and the descriptors are the caller's.
 */
int control_receive(int control_fd, struct gz_message *message, int *fds, int *count);

void control_close(int *fds, int count);

/* True if a worker of our group made the other end: a process of root, or of the user the group page names. */
bool control_is_workers(int fd);

/*
 * A wait for what a worker will say or do. Longer than asked for, up to PATIENCE_MOST_NS, while that worker is alive and only
 * waits for a CPU: on a machine with too much to do it answers late, and giving up would lose all that it serves.
 */
#define PATIENCE_MOST_NS 5000000000ull

struct patience {
	uint64_t until, last;
};

/* ns = 0: no waiting at all. */
void patience_begin(struct patience *patience, uint64_t ns);

/* How long there is still to wait; 0: it is over. */
uint64_t patience_left(struct patience *patience, int control_fd);

/* True if this descriptor, which may come from a stranger, is one end of a SOCK_SEQPACKET pair of UNIX sockets. */
bool control_is_pair_end(int fd);

#endif
