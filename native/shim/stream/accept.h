/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What a listener has brought: the accept queues of its entries, and accept() itself. */
#ifndef SHIM_ACCEPT_H
#define SHIM_ACCEPT_H

#include <stdbool.h>
#include <sys/socket.h>

#include "worker/listener.h"

/* The worker's accept queue, NULL until it has opened the listener. */
struct gz_accept_queue *accept_queue(struct entry *e, struct attachment *a);

bool accept_queue_is_empty(struct gz_accept_queue *queue);

/* True if a connection of the stack waits, or none will ever. Any thread, no locks. */
bool accept_ready(struct sock *s);

/*
 * accept4() on a listener; s->rx is held and given back. A descriptor, or -errno; `addr` as accept() has it.
 */
int accept_start(struct sock *s, int fd, struct sockaddr *addr, socklen_t *len, int flags);

#endif
