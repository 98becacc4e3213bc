/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Worker pages: our own, which the world reads, and the other workers', which we read. */
#ifndef LSTACK_PAGE_H
#define LSTACK_PAGE_H

#include <stdbool.h>
#include <stdint.h>

struct protocol_stack;

/*
 * Makes or takes over <run_dir>/worker.<queue_id>.page (never truncated: mappings of it survive a restart), clears it and
 * sets pid, generation and STARTING. 0 or -errno. Needs stack->group and queue_id.
 */
int page_open(struct protocol_stack *stack);

/* Publishes a state (enum gz_worker_state). */
void page_set_state(struct protocol_stack *stack, uint32_t state);

/* The heartbeat: the time of this turn. */
void page_beat(struct protocol_stack *stack);

/*
 * True if worker `queue_id` can be handed packets: its page says RUNNING and its process lives (a killed one is noticed
 * before its parent has reaped it). Costs a system call at most once a millisecond per worker. Ours: true.
 */
bool page_running(struct protocol_stack *stack, uint32_t queue_id);

/* The same, or it is draining: it takes no new connections but still has its old ones. */
bool page_serving(struct protocol_stack *stack, uint32_t queue_id);

/* True if this process is a worker of the instance, ourselves included. */
bool page_is_workers(struct protocol_stack *stack, uint32_t pid);

#endif
