/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * lwIP walks one list of datagram sockets for every datagram. Here each port has its own, and lwIP's list head is pointed at
 * one of them: before it gets a datagram, and before a socket is bound or removed.
 */
#ifndef LSTACK_UDP_TABLE_H
#define LSTACK_UDP_TABLE_H

#include <stdint.h>

struct frame;
struct udp_pcb;

/* udp_pcbs has the sockets of this port from now on. */
void udp_table_turn_to(uint16_t port);

/* The sockets of this port, for who only looks. */
const struct udp_pcb *udp_table_see(uint16_t port);

/*
 * An ICMP error came about a datagram that a socket here sent; `icmp` are its first 8 bytes, its checksum is right. Every worker
 * has every datagram socket, so it does not matter which of them the error reaches. What hears of it is set once, at the start.
 */
typedef void udp_error_fn(const struct frame *frame, const uint8_t *icmp);
void udp_table_on_error(udp_error_fn *hears);
void udp_table_error(const struct frame *frame, const uint8_t *icmp);

#endif
