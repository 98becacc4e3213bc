/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Socket options. What the stack acts on goes to the socket's shared options; what only the shim needs stays here; values
 * are checked by the kernel, on the socket's own descriptor or on a scratch socket. An option the stack does not know is
 * refused with the kernel's ENOPROTOOPT, never accepted in silence.
 */
#ifndef SHIM_SOCKOPT_H
#define SHIM_SOCKOPT_H

#include <sys/socket.h>

struct options;
struct sock;

/* setsockopt and getsockopt of an accelerated or fresh TCP socket. 0 or -errno. No locks held. */
int options_set(struct sock *s, int fd, int level, int name, const void *value, socklen_t len);
int options_get(struct sock *s, int fd, int level, int name, void *value, socklen_t *len);

/* A stream came to be: tells the stack what was set on the socket before. `from`: the listener of an accepted one, or s. */
void options_inherit(struct sock *s, const struct options *from);

#endif
