/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What a neighbour says about itself is believed as Linux believes it; RFC 826 and RFC 4861, 7. neighbour_table.c bounds what
 * a forger can make the worker keep.
 */
#include "net/neighbours.h"

#include <string.h>

#include <lwip/etharp.h>
#include <lwip/icmp6.h>
#include <lwip/inet_chksum.h>
#include <lwip/ip.h>
#include <lwip/ip6.h>
#include <lwip/nd6.h>
#include <lwip/pbuf.h>
#include <lwip/prot/ethernet.h>
#include <lwip/prot/iana.h>
#include <lwip/prot/icmp6.h>
#include <lwip/prot/nd6.h>
#include <lwip/sys.h>
#include <netif/ethernet.h>

#include <hooks.h>

#include "net/neighbour_table.h"
#include "net/unreachable.h"

#define ASKS 3u              /* a second apart */
#define DELAY_MS 5000u       /* then so long nobody is asked: perhaps it says something by itself */
#define LOCK_MS 1000u        /* so long a new hardware address is not replaced by another one */
#define SOLICITATION_LEN 32u /* with the option of our hardware address */
#define HOPS 255             /* of each message: no router has passed it on */
#define SOLICITED 0x40
#define OVERRIDE 0x20

/* ------------------------------------------------------------------ ask */

static void send_arp(struct netif *netif, uint16_t kind, const uint8_t *to, const uint8_t *target_mac, uint32_t target)
{
	struct pbuf *p = pbuf_alloc(PBUF_LINK, SIZEOF_ETHARP_HDR, PBUF_RAM);
	struct etharp_hdr *arp;

	if (!p)
		return;
	arp = p->payload;
	arp->hwtype = PP_HTONS(LWIP_IANA_HWTYPE_ETHERNET);
	arp->proto = PP_HTONS(ETHTYPE_IP);
	arp->hwlen = ETH_HWADDR_LEN;
	arp->protolen = 4;
	arp->opcode = lwip_htons(kind);
	memcpy(&arp->shwaddr, netif->hwaddr, ETH_HWADDR_LEN);
	memcpy(&arp->sipaddr, netif_ip4_addr(netif), 4);
	memcpy(&arp->dhwaddr, target_mac, ETH_HWADDR_LEN);
	memcpy(&arp->dipaddr, &target, 4);
	ethernet_output(netif, p, (struct eth_addr *)netif->hwaddr, (const struct eth_addr *)to, ETHTYPE_ARP);
	pbuf_free(p);
}

/* A solicitation (135) or advertisement (136) about `target`, with our hardware address. */
static void send_discovery(struct netif *netif, uint8_t type, uint8_t flags, const ip6_addr_t *target,
                           const ip6_addr_t *from, const ip6_addr_t *to)
{
	struct pbuf *p = pbuf_alloc(PBUF_IP, SOLICITATION_LEN, PBUF_RAM);
	uint8_t *message;
	uint16_t sum;

	if (!p)
		return;
	message = p->payload;
	memset(message, 0, SOLICITATION_LEN);
	message[0] = type;
	message[4] = flags;
	memcpy(message + 8, target->addr, 16);
	message[24] = type == ICMP6_TYPE_NS ? ND6_OPTION_TYPE_SOURCE_LLADDR : ND6_OPTION_TYPE_TARGET_LLADDR;
	message[25] = 1;
	memcpy(message + 26, netif->hwaddr, ETH_HWADDR_LEN);
	sum = ip6_chksum_pseudo(p, IP6_NEXTH_ICMP6, p->tot_len, from, to);
	memcpy(message + 2, &sum, 2);
	ip6_output_if(p, from, to, HOPS, 0, IP6_NEXTH_ICMP6, netif);
	pbuf_free(p);
}

static bool same_subnet6(struct netif *netif, const ip6_addr_t *addr, const ip6_addr_t **own)
{
	for (uint32_t i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++) {
		if (ip6_addr_isvalid(netif_ip6_addr_state(netif, i)) && ip6_addr_net_eq(addr, netif_ip6_addr(netif, i))) {
			*own = netif_ip6_addr(netif, i);
			return true;
		}
	}
	return false;
}

/* Asks for its hardware address: all hosts of the link, or only itself while we believe to know it. */
static void ask(struct netif *netif, struct neighbour *n, bool everybody)
{
	static const uint8_t none[ETH_HWADDR_LEN];

	n->asks++;
	if (IP_IS_V4(&n->addr)) {
		send_arp(netif, ARP_REQUEST, everybody ? ethbroadcast.addr : n->mac, none, ip_2_ip4(&n->addr)->addr);
		return;
	}
	const ip6_addr_t *target = ip_2_ip6(&n->addr), *own;
	ip6_addr_t group = { 0 };

	if (!same_subnet6(netif, target, &own))
		return;
	ip6_addr_set_solicitednode(&group, target->addr[3]);
	send_discovery(netif, ICMP6_TYPE_NS, 0, target, own, everybody ? &group : target);
}

/* ------------------------------------------------------------------ send */

static uint16_t ether_type(const struct neighbour *n)
{
	return IP_IS_V4(&n->addr) ? ETHTYPE_IP : ETHTYPE_IPV6;
}

static err_t output(struct netif *netif, struct pbuf *p, const ip_addr_t *to)
{
	struct neighbour *n = neighbour_find(to);

	if (!n) {
		n = neighbour_make(to);
		if (!n)
			return ERR_MEM;
		ask(netif, n, true);
	}
	if (n->state == ASKING)
		return neighbour_keep(n, p);
	neighbour_use(n);
	return ethernet_output(netif, p, (struct eth_addr *)netif->hwaddr, (struct eth_addr *)n->mac, ether_type(n));
}

err_t neighbours_output4(struct netif *netif, struct pbuf *p, const ip4_addr_t *to)
{
	struct eth_addr group = { { 0x01, 0x00, 0x5e, ip4_addr2(to) & 0x7f, ip4_addr3(to), ip4_addr4(to) } };
	struct eth_addr *own = (struct eth_addr *)netif->hwaddr;
	ip_addr_t next;

	if (ip4_addr_isbroadcast(to, netif))
		return ethernet_output(netif, p, own, &ethbroadcast, ETHTYPE_IP);
	if (ip4_addr_ismulticast(to))
		return ethernet_output(netif, p, own, &group, ETHTYPE_IP);
	if (!ip4_addr_net_eq(to, netif_ip4_addr(netif), netif_ip4_netmask(netif)) && !ip4_addr_islinklocal(to)) {
		to = netif_ip4_gw(netif);
		if (ip4_addr_isany(to))
			return ERR_RTE;
	}
	ip_addr_copy_from_ip4(next, *to);
	return output(netif, p, &next);
}

err_t neighbours_output6(struct netif *netif, struct pbuf *p, const ip6_addr_t *to)
{
	const uint8_t *last = (const uint8_t *)&to->addr[3];
	struct eth_addr group = { { 0x33, 0x33, last[0], last[1], last[2], last[3] } };
	const ip6_addr_t *own;
	ip_addr_t next;

	if (ip6_addr_ismulticast(to))
		return ethernet_output(netif, p, (struct eth_addr *)netif->hwaddr, &group, ETHTYPE_IPV6);
	if (!same_subnet6(netif, to, &own)) {
		to = lwip_gateway6(netif, to);
		if (!to)
			return ERR_RTE;
	}
	ip_addr_copy_from_ip6(next, *to);
	return output(netif, p, &next);
}

/* ------------------------------------------------------------------ learn */

static void learn_mac(struct netif *netif, struct neighbour *n, const uint8_t *mac, bool answered)
{
	bool asking = n->state == ASKING, changed = asking || memcmp(n->mac, mac, ETH_HWADDR_LEN);

	if (changed) {
		memcpy(n->mac, mac, ETH_HWADDR_LEN);
		n->changed_ms = sys_now();
	}
	if (answered)
		neighbour_set_state(n, REACHABLE);
	else if (changed)
		neighbour_set_state(n, STALE);
	while (asking && n->queue.first) {
		neighbour_use(n);
		ethernet_output(netif, n->queue.first->p, (struct eth_addr *)netif->hwaddr, (struct eth_addr *)n->mac,
		                ether_type(n));
		neighbour_drop_first(n);
	}
}

void neighbours_arp(struct netif *netif, struct pbuf *p)
{
	const struct etharp_hdr *arp = p->payload;
	ip4_addr_t from, to;
	ip_addr_t sender;
	struct neighbour *n;

	if (p->len < SIZEOF_ETHARP_HDR || arp->hwtype != PP_HTONS(LWIP_IANA_HWTYPE_ETHERNET) ||
	    arp->proto != PP_HTONS(ETHTYPE_IP) || arp->hwlen != ETH_HWADDR_LEN || arp->protolen != 4 ||
	    arp->shwaddr.addr[0] & 1)
		goto out;
	memcpy(&from, &arp->sipaddr, 4);
	memcpy(&to, &arp->dipaddr, 4);
	bool to_us = ip4_addr_eq(&to, netif_ip4_addr(netif));
	bool neighbour = ip4_addr_net_eq(&from, netif_ip4_addr(netif), netif_ip4_netmask(netif)) &&
	                 !ip4_addr_eq(&from, netif_ip4_addr(netif)) && !ip4_addr_isbroadcast(&from, netif);

	ip_addr_copy_from_ip4(sender, from);
	n = neighbour ? neighbour_find(&sender) : NULL;
	if (neighbour && !n && to_us)
		n = neighbour_make(&sender);
	if (n && (n->state == ASKING || n->state == PROBING || sys_now() - n->changed_ms >= LOCK_MS ||
	          !memcmp(n->mac, &arp->shwaddr, ETH_HWADDR_LEN)))
		learn_mac(netif, n, arp->shwaddr.addr, to_us && arp->opcode == PP_HTONS(ARP_REPLY));
	if (to_us && arp->opcode == PP_HTONS(ARP_REQUEST) && (neighbour || ip4_addr_isany_val(from)))
		send_arp(netif, ARP_REPLY, arp->shwaddr.addr, arp->shwaddr.addr, from.addr);
out:
	pbuf_free(p);
}

/* The hardware address in an option of this type behind the first 24 bytes of a message; NULL: none. */
static const uint8_t *mac_option(const struct pbuf *p, uint8_t type)
{
	const uint8_t *message = p->payload;

	for (uint32_t at = 24; at + 8 <= p->len && message[at + 1]; at += message[at + 1] * 8u)
		if (message[at] == type)
			return message[at + 2] & 1 ? NULL : message + at + 2;
	return NULL;
}

static void on_solicitation(struct netif *netif, struct pbuf *p, const ip6_addr_t *target)
{
	const uint8_t *mac = mac_option(p, ND6_OPTION_TYPE_SOURCE_LLADDR);
	const ip6_addr_t *from = ip6_current_src_addr(), *own;
	ip6_addr_t everybody = { 0 };
	ip_addr_t sender;
	bool ours = false;

	for (uint32_t i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++)
		ours |= ip6_addr_isvalid(netif_ip6_addr_state(netif, i)) && ip6_addr_eq(target, netif_ip6_addr(netif, i));
	if (!ours)
		return;
	if (ip6_addr_isany(from)) { /* a host looks whether it may take that address */
		ip6_addr_set_allnodes_linklocal(&everybody);
		send_discovery(netif, ICMP6_TYPE_NA, OVERRIDE, target, target, &everybody);
		return;
	}
	if (!same_subnet6(netif, from, &own) || ip6_addr_eq(from, target))
		return;
	ip_addr_copy_from_ip6(sender, *from);
	if (mac) {
		struct neighbour *n = neighbour_find(&sender);

		if (!n)
			n = neighbour_make(&sender);
		if (n)
			learn_mac(netif, n, mac, false);
	}
	send_discovery(netif, ICMP6_TYPE_NA, SOLICITED | OVERRIDE, target, target, from);
}

static void on_advertisement(struct netif *netif, struct pbuf *p, const ip6_addr_t *target)
{
	const uint8_t *mac = mac_option(p, ND6_OPTION_TYPE_TARGET_LLADDR);
	uint8_t flags = ((const uint8_t *)p->payload)[4];
	struct neighbour *n;
	ip_addr_t addr;

	ip_addr_copy_from_ip6(addr, *target);
	n = neighbour_find(&addr);
	if (!n || (n->state == ASKING && !mac))
		return;
	if (n->state != ASKING && mac && !(flags & OVERRIDE) && memcmp(mac, n->mac, ETH_HWADDR_LEN)) {
		if (n->state == REACHABLE)
			neighbour_set_state(n, STALE);
		return;
	}
	learn_mac(netif, n, mac ? mac : n->mac, flags & SOLICITED);
}

/* From lwIP's icmp6_input, which has verified the checksum; takes the pbuf. */
void nd6_input(struct pbuf *p, struct netif *netif)
{
	const uint8_t *message = p->payload;
	ip6_addr_t target = { 0 };

	if (p->len >= 24 && IP6H_HOPLIM(ip6_current_header()) == HOPS && !message[1]) {
		memcpy(target.addr, message + 8, 16);
		if (message[0] == ICMP6_TYPE_NS)
			on_solicitation(netif, p, &target);
		else if (message[0] == ICMP6_TYPE_NA)
			on_advertisement(netif, p, &target);
	}
	pbuf_free(p);
}

/* ------------------------------------------------------------------ time */

static void tick(struct netif *netif, struct neighbour *n)
{
	uint32_t age = sys_now() - n->since_ms;

	if (n->state == DELAYED && age >= DELAY_MS)
		neighbour_set_state(n, PROBING);
	if (n->state != ASKING && n->state != PROBING)
		return;
	if (n->asks < ASKS) {
		ask(netif, n, n->state == ASKING || n->asks); /* it may have another hardware address by now */
		return;
	}
	for (const struct waiting *w = n->queue.first; w; w = w->next)
		unreachable_packet(w->p);
	neighbour_forget(n); /* nobody is there */
}

void neighbours_timer(struct netif *netif)
{
	neighbour_each(netif, tick);
}

/* ------------------------------------------------------------------ what lwIP expects of its own tables */

/* Says who has our address, when the interface comes up. */
err_t etharp_request(struct netif *netif, const ip4_addr_t *addr)
{
	static const uint8_t none[ETH_HWADDR_LEN];

	send_arp(netif, ARP_REQUEST, ethbroadcast.addr, none, addr->addr);
	return ERR_OK;
}

void etharp_input(struct pbuf *p, struct netif *netif)
{
	neighbours_arp(netif, p);
}

void etharp_cleanup_netif(struct netif *netif)
{
	(void)netif;
}

void nd6_cleanup_netif(struct netif *netif)
{
	(void)netif;
}

void nd6_restart_netif(struct netif *netif)
{
	(void)netif;
}

struct netif *nd6_find_route(const ip6_addr_t *to)
{
	(void)to;
	return NULL; /* ip6_route then takes the default interface, which is the only one */
}
