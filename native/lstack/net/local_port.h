/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The local port of an outgoing connection. */
#ifndef LSTACK_LOCAL_PORT_H
#define LSTACK_LOCAL_PORT_H

#include <stdint.h>

#include <lwip/ip_addr.h>

struct protocol_stack;

/* Chooses by chance where the search begins. */
void local_port_open(struct protocol_stack *stack);

/*
 * A local port such that replies are steered to this worker: hash-matched, free here, and not a published listener's.
 * Returns 0 if there is none (EADDRNOTAVAIL).
 */
uint16_t local_port_pick(struct protocol_stack *stack, const ip_addr_t *local, const ip_addr_t *remote,
                         uint16_t remote_port);

#endif
