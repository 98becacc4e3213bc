/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The worker's side of attached applications, as loop.c sees it. The pieces: app.c (an attached process), attach.c and
 * detach.c (its beginning and its end), control.c (its messages), requests.c (its requests and rung sockets), introduce.c
 * (programs of one host), audit.c (the memory they use).
 */
#ifndef LSTACK_APPS_H
#define LSTACK_APPS_H

#include <stdbool.h>
#include <stdint.h>

struct protocol_stack;

/* Binds <run_dir>/worker.<queue_id>.sock and adds it to stack->epoll_fd. 0 or -errno. Before privileges drop. */
int apps_open(struct protocol_stack *stack);

/* One turn: rung sockets and requests of every attached process, within the budgets. Returns the work done (0 = idle). */
uint32_t apps_poll(struct protocol_stack *stack);

/* End of a turn: tells applications what changed in it, waking those asleep. */
void apps_flush(struct protocol_stack *stack);

/*
 * True if an application that was rung since the last call looks for it from the CPU we are on and has not come to it: it
 * waits for us to leave.
 */
bool apps_wait_here(struct protocol_stack *stack);

/* Second look of the two-phase sleep, after page->asleep is set and a fence: true if any bell or request is pending. */
bool apps_pending(struct protocol_stack *stack);

/*
 * A descriptor of ours in stack->epoll_fd is ready. The loop calls it for every event whose data.ptr is not its own;
 * `owner` is that pointer.
 */
void apps_event(struct protocol_stack *stack, void *owner, uint32_t events);

/* SIGTERM: listeners close, and connections are reset: nobody will be there to finish them. */
void apps_drain(struct protocol_stack *stack);

#endif
