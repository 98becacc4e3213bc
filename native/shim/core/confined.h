/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A process that gives up rights: descriptors, its root, system calls (sshd, vsftpd). What the library will need it fetches before that
 * (api_confine.c). Under a filter of system calls it makes few: read, write and poll.
 */
#ifndef SHIM_CONFINED_H
#define SHIM_CONFINED_H

#include <stdbool.h>

extern bool confined; /* a filter of system calls is in place */

/* One byte that wakes whoever sleeps on the other end, as GZ_WAKE_FLAGS say. 1; or -1 and errno. */
long confined_wake(int fd);

/* Takes what came, without waiting. As recv(). */
long confined_drain(int fd);

#endif
