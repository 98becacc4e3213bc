/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The record of open connections, <run_dir>/worker.<queue_id>.flows: what a worker leaves to its successor if it dies. The
 * peer of a lost connection that only waits for an answer would wait for ever, since nothing it sends could be answered by
 * a reset. So the successor sends each of them one segment that fits nowhere; a peer that still has the connection answers
 * it by an ACK (RFC 9293, 3.10.7.4), and lwIP answers that by the reset that belongs there.
 */
#ifndef LSTACK_FLOWS_H
#define LSTACK_FLOWS_H

#include <stdbool.h>
#include <stdint.h>

struct protocol_stack;
struct tcp_pcb;

#define FLOWS_NONE UINT32_MAX

/* Opens the record, taking over what a dead worker left in it. Before the first packet. 0 or -errno. */
int flows_open(struct protocol_stack *stack);

/* Records a connection. The number to forget it by; FLOWS_NONE if the record cannot grow, which costs only its peer's notice. */
uint32_t flows_add(const struct tcp_pcb *pcb);
void flows_remove(uint32_t flow);

/* Sends a turn's share of what the predecessor's peers must hear. Each turn. True while some have not been told. */
bool flows_tell_peers(struct protocol_stack *stack);

#endif
