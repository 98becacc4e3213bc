/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Frames from worker to worker: each copies those that another is to have into that worker's ring (packet_ring.h) and wakes
 * it at the end of the turn, if it sleeps.
 */
#ifndef LSTACK_HANDOVER_H
#define LSTACK_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

struct protocol_stack;
struct rte_mbuf;

enum handover_kind { HANDOVER_FLOW, HANDOVER_FRAGMENT, HANDOVER_ARP, HANDOVER_NEIGHBOR };

/* Opens the packet rings and the wake socket (added to stack->epoll_fd). 0 or -errno. Before privileges drop. */
int handover_open(struct protocol_stack *stack);

/*
 * Copies a frame into worker q's ring. The mbuf stays the caller's. `origin` is the worker whose port it came by, `at` how
 * far along its chain of workers it is.
 */
void handover_send(struct protocol_stack *stack, uint32_t q, const struct rte_mbuf *m, enum handover_kind kind,
                   uint32_t origin, uint32_t at);

/* End of a turn: wakes the sleeping workers that were handed frames. */
void handover_flush(struct protocol_stack *stack);

/* Takes an mbuf chain that another worker handed over. */
typedef void handover_fn(struct protocol_stack *stack, struct rte_mbuf *m, uint32_t origin, uint32_t at);

/* Frames other workers handed us: at most `budget`. Returns how many. */
uint32_t handover_poll(struct protocol_stack *stack, uint32_t budget, handover_fn *take);

/* Second look of the two-phase sleep: true if a ring has something for us. */
bool handover_pending(const struct protocol_stack *stack);

/* The wake socket is readable: empties it. The loop knows the event by data.ptr == &stack->handover. */
void handover_woken(struct protocol_stack *stack);

#endif
