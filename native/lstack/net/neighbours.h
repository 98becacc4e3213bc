/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The neighbours on the link, of both families: ARP and neighbour discovery, in place of lwIP's small tables. Static
 * addresses only: routers are configured, so their advertisements and redirects are nobody's business here.
 */
#ifndef LSTACK_NEIGHBOURS_H
#define LSTACK_NEIGHBOURS_H

#include <stdbool.h>
#include <stdint.h>

#include <lwip/err.h>
#include <lwip/ip_addr.h>

struct netif;
struct pbuf;

/* Sends an IP packet to a neighbour, or to a group; what has to wait for an answer is copied. As netif->output. */
err_t neighbours_output4(struct netif *netif, struct pbuf *p, const ip4_addr_t *to);
err_t neighbours_output6(struct netif *netif, struct pbuf *p, const ip6_addr_t *to);

/* An ARP packet without its Ethernet header; takes the pbuf. */
void neighbours_arp(struct netif *netif, struct pbuf *p);

/* Asks again, gives up, probes neighbours that have been silent. Once a second. */
void neighbours_timer(struct netif *netif);

#endif
