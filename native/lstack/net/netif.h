/* SPDX-License-Identifier: MulanPSL-2.0 */
/* lwIP's one network interface on our port: mbuf to pbuf and back. */
#ifndef LSTACK_NETIF_H
#define LSTACK_NETIF_H

#include <stdbool.h>
#include <stdint.h>

#include <lwip/netif.h>

struct pbuf;
struct protocol_stack;
struct rte_mbuf;
struct udp_pcb;

/* Brings up lwIP and its netif with the group's address and MAC. 0 or -errno. */
int netif_open(struct protocol_stack *stack);

/* The clock and slow timers of lwIP's lower layers (ARP, reassembly). Each turn. */
void netif_timers(struct protocol_stack *stack);

/* How many frames that we sent to our own address wait to come in again, and the oldest of them. */
uint32_t netif_looped(void);
struct rte_mbuf *netif_take_looped(void);

/*
 * One fragment of an IP datagram to us; takes the mbuf chain. Returns the whole datagram as a frame once it is complete,
 * with nothing known of its checksum; NULL until then.
 */
struct rte_mbuf *netif_reassemble(struct protocol_stack *stack, struct rte_mbuf *m);

/*
 * A frame that is ours, into lwIP; takes the mbuf chain. For TCP the bucket (tcp_table_bucket) is given, and entered and left
 * inside; NETIF_NO_BUCKET for everything else.
 */
#define NETIF_NO_BUCKET UINT32_MAX
void netif_feed(struct protocol_stack *stack, struct rte_mbuf *m, uint32_t bucket);

/* Sends a datagram of a socket from one of the stack's addresses; the pbuf stays the caller's. */
err_t netif_send_datagram(struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *to, uint16_t port, const ip_addr_t *from);

/* Beside the kernel: a frame that no socket here is for, as it came but for its checksum, back to the kernel; takes the mbuf chain. */
void netif_return(struct protocol_stack *stack, struct rte_mbuf *m);

/* Sends what the turn has queued. */
void netif_flush(struct protocol_stack *stack);

/*
 * While on, IP packets leave whole whatever their size. For datagrams to our own address: their fragments would come together at
 * another worker and be overtaken by the next datagram, which the kernel's loopback never does.
 */
void netif_uncut(bool on);

#endif
