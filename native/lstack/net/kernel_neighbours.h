/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Beside the kernel neighbours are the kernel's. Of one that does not answer it tells by netlink, and connects that would go by
 * it are over. Without an uplink every call does nothing.
 */
#ifndef LSTACK_KERNEL_NEIGHBOURS_H
#define LSTACK_KERNEL_NEIGHBOURS_H

#include <stdbool.h>

struct protocol_stack;

/* Begins to listen, by the worker's epoll set. 0, or -errno. Before the list of system calls, which has no such sockets. */
int kernel_neighbours_open(struct protocol_stack *stack);

/* True if an event of the epoll set is ours: it has been dealt with. */
bool kernel_neighbours_event(struct protocol_stack *stack, const void *mark);

#endif
