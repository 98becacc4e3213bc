/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * UDP sockets of the stack. One begins FRESH; bind(), connect() or the first sendto() make it a DGRAM: the kernel's
 * placeholder arbitrates the port, and every worker that takes incoming packets has the socket under a number of its own
 * (the entries of struct listener). Bound to 0.0.0.0 or :: the placeholder is alive, too: what the kernel hears is merged, and
 * what the stack does not route goes out there.
 */
#ifndef SHIM_DGRAM_H
#define SHIM_DGRAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/attachment.h"
#include "core/sock.h"

/*
 * The datagram socket of a descriptor, referenced, or NULL: the kernel's, or a stream. FRESH ones only if `fresh`.
 * No locks are held.
 */
struct sock *dgram_enter(int fd, bool fresh);

/* bind() gave a FRESH datagram socket its address (s->local). 0, 1 = the kernel's alone from now on, or -errno. */
int dgram_bound(struct sock *s, int fd);

/* A FRESH socket sends its first datagram: binds it to a port of any address. 0 or -errno. Both locks held. */
int dgram_begin(struct sock *s, int fd);

/* True if the stack, not the kernel, reaches this address for s; else `why` says the reason. tx held. */
bool dgram_routed(struct sock *s, int fd, const struct endpoint *to, uint8_t *own, enum gz_kernel_reason *why);

/* An address as this socket may be told it: the endpoint. False: it is none, or of a family that is not the socket's. */
bool dgram_address(const struct sock *s, const struct sockaddr *sa, socklen_t len, struct endpoint *out);

/* connect(), also to AF_UNSPEC. 0, 1 = the kernel is to do it, or -errno. No locks held; the caller has a reference. */
int dgram_connect(struct sock *s, int fd, const struct sockaddr *sa, socklen_t len);

/* getsockname or getpeername. 0, 1 = the placeholder knows, or -errno. */
int dgram_name(struct sock *s, bool peer, struct sockaddr *sa, socklen_t *len);

/* shutdown(). 0 or -errno. */
int dgram_shutdown(struct sock *s, int how);

/* The last descriptor is gone. Both locks of s held. */
void dgram_close(struct sock *s);

#endif
