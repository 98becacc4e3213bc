/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Datagrams in and out of the FIFOs of a datagram socket's entries. */
#ifndef SHIM_DGRAM_MESSAGE_H
#define SHIM_DGRAM_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct sock;

/* sendmsg and recvmsg; consume the reference of dgram_enter. Bytes or -errno. */
ssize_t dgram_send(struct sock *s, int fd, const struct msghdr *msg, int flags);
ssize_t dgram_recv(struct sock *s, int fd, struct msghdr *msg, int flags);

/* Bytes of the next datagram; -1: none, the kernel may have one. */
int dgram_next(struct sock *s);

/* A write would not wait; if it would, the worker is asked to ring. Any thread, no locks. */
bool dgram_has_room(struct sock *s);

#endif
