/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Options of datagram sockets. The placeholder holds their values, checked, bounded and doubled as the kernel does it; what
 * the stack acts on is read from there and told to the workers. What the stack cannot do sends a socket whose path is still
 * open to the kernel for good, and is refused with ENOPROTOOPT on one that is on the stack.
 */
#ifndef SHIM_DGRAM_OPTIONS_H
#define SHIM_DGRAM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct endpoint;
struct sock;

/* Reads them from the placeholder. The caller tells the workers. Both locks held. */
void dgram_options_load(struct sock *s, int fd);

/* The largest IP packet on the way there. */
uint32_t dgram_mtu(const struct endpoint *to);

/* setsockopt and getsockopt of a FRESH or DGRAM datagram socket. 0 or -errno. No locks held. */
int dgram_option_set(struct sock *s, int fd, int level, int name, const void *value, socklen_t len);
int dgram_option_get(struct sock *s, int fd, int level, int name, void *value, socklen_t *len);

#endif
