/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The worker's loop: turns while there is work, a bounded time of idle polling after that, then sleep. */
#ifndef LSTACK_LOOP_H
#define LSTACK_LOOP_H

struct protocol_stack;

/* Adds the port's descriptor to stack->epoll_fd and takes over SIGTERM and SIGINT. 0 or -errno. */
int loop_open(struct protocol_stack *stack);

/* Serves until SIGTERM, then drains: at most a second. */
void loop_run(struct protocol_stack *stack);

#endif
