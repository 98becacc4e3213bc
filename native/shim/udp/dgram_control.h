/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Control messages: what recvmsg tells of a datagram besides its bytes, and what sendmsg may ask for one. */
#ifndef SHIM_DGRAM_CONTROL_H
#define SHIM_DGRAM_CONTROL_H

#include <sys/socket.h>

struct endpoint;
struct gz_datagram;
struct sock;

/* Fills in the sender and the control messages that the socket's options ask for; msg_flags is set before. rx held. */
void dgram_control_fill(struct sock *s, struct msghdr *msg, const struct gz_datagram *header);

/*
 * Sets hops and tos of a datagram to `to`: as the message asks for it, else as the options do. A source may be named if it is
 * the stack's address. 0 or -EINVAL: a message the stack does not know, or cannot do. tx held.
 */
int dgram_control_read(struct sock *s, const struct endpoint *to, const struct msghdr *msg, struct gz_datagram *header);

#endif
