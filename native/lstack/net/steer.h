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

#include <stdbool.h>
#include <stdint.h>

#include <lwip/ip_addr.h>

struct protocol_stack;
struct rte_mbuf;

/* Opens the packet rings, the wake socket (added to stack->epoll_fd) and the hash tables. 0 or -errno. Before privileges drop. */
int steer_open(struct protocol_stack *stack);

/* The RSS hash of an incoming packet: Toeplitz over both addresses and, for TCP and UDP, both ports. As DPDK's rte_softrss. */
uint32_t steer_hash(const struct protocol_stack *stack, const ip_addr_t *remote, uint16_t remote_port,
                    const ip_addr_t *local, uint16_t local_port);

/* End of a turn: wakes the sleeping workers we handed frames to. */
void steer_flush(struct protocol_stack *stack);

/* Second look of the two-phase sleep: true if a ring has something for us. */
bool steer_pending(const struct protocol_stack *stack);

/* The wake socket is readable: empties it. The loop knows the event by data.ptr == &stack->steer. */
void steer_woken(struct protocol_stack *stack);

/* A frame from our port. Takes the mbuf (chain). */
void steer_input(struct protocol_stack *stack, struct rte_mbuf *m);

/* Frames other workers handed us: at most `budget`. Returns how many. */
uint32_t steer_poll(struct protocol_stack *stack, uint32_t budget);

/*
 * A local port for an outgoing connection, such that replies are steered to this worker: hash-matched, free here, and not a
 * published listener's. Returns 0 if there is none (EADDRNOTAVAIL).
 */
uint16_t steer_pick_port(struct protocol_stack *stack, const ip_addr_t *local, const ip_addr_t *remote,
                         uint16_t remote_port);

#endif
