/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Steering: which worker does a packet belong to?
 *   1. the worker that has its connection keeps it, whatever queue it came by;
 *   2. else its owner is RETA[toeplitz(4-tuple)] (with the split: the recv worker of that pair): a SYN to a port we listen on
 *      is taken by the owner, or by us while the owner is not running;
 *   3. else it visits the other running workers, each of which asks 1 and 2, and the last one lets lwIP answer (RST).
 * The worker that gets an ARP packet processes it and copies it to all others as a reply, so that each learns but one answers.
 */
#ifndef LSTACK_STEER_H
#define LSTACK_STEER_H

#include <stdbool.h>
#include <stdint.h>

struct protocol_stack;
struct rte_mbuf;

/* Opens the hash tables, the search for ports and the hand-over (handover.h). 0 or -errno. Before privileges drop. */
int steer_open(struct protocol_stack *stack);

/* A frame from our port. Takes the mbuf (chain). */
void steer_input(struct protocol_stack *stack, struct rte_mbuf *m);

/* Frames other workers handed us: at most `budget`. Returns how many. */
uint32_t steer_poll(struct protocol_stack *stack, uint32_t budget);

#endif
