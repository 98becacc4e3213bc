/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * lwIP walks one list of datagram sockets for every datagram. Here each port has its own, and lwIP's list head is pointed at
 * one of them: before it gets a datagram, and before a socket is bound or removed.
 */
#ifndef LSTACK_UDP_TABLE_H
#define LSTACK_UDP_TABLE_H

#include <stdint.h>

/* udp_pcbs has the sockets of this port from now on. */
void udp_table_turn_to(uint16_t port);

#endif
