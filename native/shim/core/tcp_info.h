/* SPDX-License-Identifier: MulanPSL-2.0 */
/* TCP_INFO of a connection of the stack, in a file of its own because the kernel's header for it clashes with libc's. */
#ifndef SHIM_TCP_INFO_H
#define SHIM_TCP_INFO_H

#include <sys/socket.h>

struct sock;

/* getsockopt(TCP_INFO) on a STREAM: what the worker publishes of it; the rest is 0. 0 or -errno. */
int tcp_info_get(struct sock *s, void *value, socklen_t *len);

#endif
