/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Paths that take less than the device, as ICMP errors tell it that quote a flow of ours. */
#ifndef LSTACK_PATH_MTU_H
#define LSTACK_PATH_MTU_H

#include <stdbool.h>
#include <stdint.h>

#include <lwip/ip_addr.h>

struct frame;

/*
 * Learns from an error about a connection that this worker has, in its bucket, which is not entered: that connection
 * follows at once, new ones to the same address later. False: it quotes nothing that is under way.
 */
bool path_mtu_of_connection(const struct frame *frame, uint32_t bucket);

/* Learns from an error about a datagram of a socket that this worker has. It concerns datagrams only. */
void path_mtu_of_datagram(const struct frame *frame);

/* What the path to an address takes, if less than `mtu`, else `mtu`. */
uint16_t path_mtu_get(const ip_addr_t *to, bool tcp, uint16_t mtu);

#endif
