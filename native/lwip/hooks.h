/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Functions of the worker that lwIP calls (lwipopts.h says when). */
#ifndef LSTACK_LWIP_HOOKS_H
#define LSTACK_LWIP_HOOKS_H

#include "lwip/ip_addr.h"

struct netif;
struct pbuf;
struct tcp_hdr;
struct tcp_pcb;
struct tcp_pcb_listen;

/* isn.c: SipHash of the 4-tuple under a secret of this process, plus a clock of 4 us. */
u32_t lwip_tcp_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote, u16_t remote_port);

/* tcp_table.c: no connection refers to this listener any more. */
void tcp_table_forget_listener(struct tcp_pcb *listener);

/* syncookie.c: a segment for a listener has come; ERR_OK: lwIP goes on with it, else it has been dealt with. */
s8_t lwip_listener_segment(struct tcp_pcb_listen *listener, struct tcp_hdr *header, u16_t options_len,
                           const u8_t *options_rest, struct pbuf *p);

/*
 * ahead.c: bytes (and a FIN behind them) that came before those that belong before them. Not 0: they are kept, in a
 * contiguous piece from *left to *right.
 */
int lwip_out_of_order(struct tcp_pcb *pcb, u32_t seqno, const struct pbuf *p, int fin, u32_t *left, u32_t *right);
/* How many of the bytes kept follow rcv_nxt now. The callback for received data comes next, and they count as delivered by it. */
u32_t lwip_following(struct tcp_pcb *pcb);
/* Whether a FIN that was kept is next. */
int lwip_fin_follows(struct tcp_pcb *pcb);

/* netif.c: what a path takes, for TCP and for IPv6 datagrams. */
u16_t lwip_tcp_path_mtu(const ip_addr_t *dest, const struct netif *netif);
u16_t lwip_ip6_path_mtu(const ip6_addr_t *dest, const struct netif *netif);

/* netif.c: the next hop out of the subnet; NULL: none is configured. */
const ip6_addr_t *lwip_gateway6(struct netif *netif, const ip6_addr_t *dest);

#endif
