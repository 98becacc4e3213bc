/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Beside the kernel (native/bpf): tells the tc program at the interface which ports this worker has sockets on, and that it
 * lives. Without an uplink every call does nothing.
 */
#ifndef LSTACK_UPLINK_H
#define LSTACK_UPLINK_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/group_page.h>

struct protocol_stack;
struct tcp_pcb;

static inline bool uplink_is_on(const struct gz_group_page *group)
{
	return group->uplink_owners != 0;
}

/* Opens the program's maps. 0, or -errno. With privileges; before the first socket. */
int uplink_open(struct protocol_stack *stack);

/* From now on the program sends us packets, until this process ends. 0, or -errno. With privileges; the last step of a start. */
int uplink_announce(struct protocol_stack *stack);

/* This worker has one socket more, or one less, with that local port. `protocol`: IPPROTO_TCP or IPPROTO_UDP. */
void uplink_hold(uint8_t protocol, uint16_t port);
void uplink_release(uint8_t protocol, uint16_t port);

/* The same for a connection, until lwIP frees its pcb: the states after FIN count as well. Call it once for a pcb. */
void uplink_hold_pcb(struct tcp_pcb *pcb);

#endif
