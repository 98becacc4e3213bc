/* SPDX-License-Identifier: MulanPSL-2.0 */
/* How the kernel's side of a datagram socket is kept from hearing what is for others. */
#ifndef SHIM_DGRAM_ASIDE_H
#define SHIM_DGRAM_ASIDE_H

#include <stdbool.h>

struct sock;

/*
 * Whether the kernel's side of s is connected to itself, so that others hear on its port; makes it so, or ends that. It has
 * s's address only while it is not. 0 or -errno.
 */
bool dgram_is_aside(const struct sock *s, int fd);
int dgram_move_aside(struct sock *s, int fd, bool aside);

/* On both sides, and connected to a peer on the stack: the kernel is to hear nobody; or all again. 0 or -errno. */
int dgram_quieten_kernel(struct sock *s, int fd, bool quiet);

#endif
