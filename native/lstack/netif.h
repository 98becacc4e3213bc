/* SPDX-License-Identifier: MulanPSL-2.0 */
/* lwIP's one network interface on our port: mbuf to pbuf and back. */
#ifndef LSTACK_NETIF_H
#define LSTACK_NETIF_H

#include <stdint.h>

#include <lwip/netif.h>

struct protocol_stack;
struct rte_mbuf;

/* Brings up lwIP and its netif with the group's address and MAC. 0 or -errno. */
int netif_open(struct protocol_stack *stack);

/* A frame that is ours, into lwIP; takes the mbuf chain. The TCP bucket is entered and left inside. */
void netif_feed(struct protocol_stack *stack, struct rte_mbuf *m);

/* Sends what the turn has queued. */
void netif_flush(struct protocol_stack *stack);

#endif
