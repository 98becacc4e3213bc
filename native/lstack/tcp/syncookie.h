/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * SYN cookies (RFC 4987, 3.6): once too many connections of this worker are half open, a SYN is answered and forgotten. What
 * is needed when the ACK comes is in what it brings back: our initial sequence number is a keyed hash of the addresses,
 * ports, the peer's sequence number and the minute, its last three bits say which MSS the peer has; window scale and SACK
 * are in the last bits of our timestamp, as in Linux. A peer without timestamps does without these two.
 * One module, one state: lwIP calls it without a context of ours.
 */
#ifndef LSTACK_SYNCOOKIE_H
#define LSTACK_SYNCOOKIE_H

#include <stdbool.h>
#include <stdint.h>

#include <lwip/ip_addr.h>

struct protocol_stack;
struct tcp_pcb;

/* After isn_open, before the first listener. */
void syncookie_open(struct protocol_stack *stack);

/* Has the half-open connections of this listener counted, until each completes or ends. */
void syncookie_watch(struct tcp_pcb *listener);

/* lwIP has called the listener's accept callback: this connection is no longer half open. */
void syncookie_completed(struct tcp_pcb *pcb);

/* True if an ACK with these numbers answers a cookie that this worker sent at most two minutes ago. */
bool syncookie_sent(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote, uint16_t remote_port,
                    uint32_t seqno, uint32_t ackno);

#endif
