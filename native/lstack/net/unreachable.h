/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What keeps a packet of ours from its destination, as ICMP says it, or a neighbour that does not answer. A connect ends by it
 * at once, as the kernel's does; a connection that stands goes on, since the path may mend (RFC 1122, 4.2.3.9).
 */
#ifndef LSTACK_UNREACHABLE_H
#define LSTACK_UNREACHABLE_H

#include <stdbool.h>
#include <stdint.h>

struct frame;
struct pbuf;
struct tcp_pcb;

/* The errno an ICMP error stands for, 0: none. *fatal: a datagram socket hears of it as well. */
int unreachable_errno(bool v6, uint8_t type, uint8_t code, bool *fatal);

/* `hears` is told which connect is over, in the pcb's bucket; it ends the pcb. */
typedef void unreachable_fn(struct tcp_pcb *pcb, int error);
void unreachable_on_connect(unreachable_fn *hears);

/* An ICMP error about a segment of ours has come. Not between tcp_table_enter and leave. */
void unreachable_icmp(const struct frame *frame, const uint8_t *icmp);

/* Nobody answers where this IP packet of ours was to go. Not between tcp_table_enter and leave. */
void unreachable_packet(const struct pbuf *p);

/* A connect is over, since the next hop of its packets does not answer. In the pcb's bucket. */
void unreachable_connect(struct tcp_pcb *pcb);

#endif
