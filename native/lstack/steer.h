/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Steering: which worker does a packet belong to?
 *   1. the worker that has its connection keeps it, whatever queue it came by;
 *   2. else its owner is RETA[toeplitz(4-tuple)] (with the split: the recv worker of that pair): a SYN to a port we listen on
 *      is taken by the owner, or by us while the owner is not running;
 *   3. else it visits the other running workers, each of which asks 1 and 2, and the last one lets lwIP answer (RST).
 * ARP is processed by whoever got it and copied to all others, as replies, so that each learns but one answers.
 */
#ifndef LSTACK_STEER_H
#define LSTACK_STEER_H

#include <stdint.h>

#include <lwip/ip_addr.h>

struct protocol_stack;
struct rte_mbuf;

/* A frame from our port. Takes the mbuf (chain). */
void steer_input(struct protocol_stack *stack, struct rte_mbuf *m);

/* Frames other workers handed us: at most `budget`. Returns how many. */
uint32_t steer_poll(struct protocol_stack *stack, uint32_t budget);

/*
 * A local port for an outgoing connection, such that replies are steered to this worker: hash-matched, free here, and not a
 * published listener's. Returns 0 if there is none (EADDRNOTAVAIL).
 */
uint16_t steer_pick_port(struct protocol_stack *stack, const ip_addr_t *local, const ip_addr_t *remote, uint16_t remote_port);

#endif
