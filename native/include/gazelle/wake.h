/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Waking a process that sleeps. Its event queue is one end of a SOCK_SEQPACKET pair of UNIX sockets; it gives the other end to
 * the processes that are to wake it; a byte wakes. Not an eventfd: each process that shares one can decide whether writes to it
 * wait, so the sleeper could hold up every process that wakes it. Whether a send waits is for the sender alone to decide.
 */
#ifndef GAZELLE_WAKE_H
#define GAZELLE_WAKE_H

#include <stdbool.h>
#include <sys/socket.h>

/* How to send the byte: never waits, whatever the other side has done with the socket. */
#define GZ_WAKE_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)

/* What getsockopt() must say of a descriptor that came from a stranger: a pair's end, which stays one as long as it lives. */
#define GZ_WAKE_DOMAIN AF_UNIX
#define GZ_WAKE_TYPE SOCK_SEQPACKET

#endif
