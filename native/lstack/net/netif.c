/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "net/netif.h"

#include <errno.h>
#include <string.h>

#include <rte_ether.h>
#include <rte_mbuf.h>

#include <lwip/init.h>
#include <lwip/ip.h>
#include <lwip/ip4.h>
#include <lwip/ip6.h>
#include <lwip/sys.h>
#include <lwip/timeouts.h>
#include <lwip/udp.h>
#include <netif/ethernet.h>

#include <hooks.h>

#include <gazelle/address.h>
#include <gazelle/group_page.h>
#include <gazelle/uplink.h>
#include <gazelle/worker_page.h>

#include "core/worker.h"
#include "net/address.h"
#include "net/fragments.h"
#include "packet/mbuf_chain.h"
#include "port/mempool.h"
#include "net/neighbours.h"
#include "net/path_mtu.h"
#include "port/port.h"
#include "tcp/tcp_table.h"
#include "net/uplink.h"

#define SECOND_NS 1000000000ull
#define OTHER6 1       /* index of the configured address; 0 is the link-local one */
#define LOOP_MAX 1024u /* frames to ourselves that wait for the next turn */

/* lwIP has one netif and calls back without a context of ours: this is the module's single state. */
static struct {
	struct netif netif;
	struct protocol_stack *stack;
	ip6_addr_t gateway6;
	bool has_gateway6;
	uint64_t timer_ns;
	uint32_t now_ms;
	uint32_t loop_head, loop_tail;
	struct rte_mbuf *loop[LOOP_MAX];
} self;

uint32_t sys_now(void)
{
	return self.now_ms;
}

/* ------------------------------------------------------------------ receive */

/* lwIP is done with one segment of a frame. Each mbuf of a chain is freed by its own pbuf. */
static void free_mbuf(struct pbuf *p)
{
	struct mbuf_private *private = (struct mbuf_private *)p; /* the pbuf is its first member */

	rte_pktmbuf_free_seg(private->mbuf);
}

/* Lends an mbuf chain to lwIP. Its total is at most 65,535 bytes, since the Ethernet header is gone. */
static struct pbuf *lend(struct rte_mbuf *m)
{
	struct pbuf *head = NULL, *last = NULL;
	uint32_t left = m->pkt_len;

	while (m) {
		struct mbuf_private *private = rte_mbuf_to_priv(m);
		struct rte_mbuf *next = m->next;
		struct pbuf *p;

		private->mbuf = m;
		private->pbuf.custom_free_function = free_mbuf;
		p = pbuf_alloced_custom(PBUF_RAW, m->data_len, PBUF_REF, &private->pbuf, rte_pktmbuf_mtod(m, void *),
		                        m->data_len);
		p->tot_len = (u16_t)left;
		left -= m->data_len;
		if (last)
			last->next = p;
		else
			head = p;
		last = p;
		m->next = NULL; /* lwIP may free one and keep the other */
		m->nb_segs = 1;
		m = next;
	}
	return head;
}

/*
 * lwIP knows one address of each family. Beside the kernel the interface has as many as the kernel's has, so it gets the one
 * that the packet at hand is to: what lwIP accepts, and what it answers from without a connection.
 */
static void bear(const struct protocol_stack *stack, const struct pbuf *p, bool v6)
{
	const uint8_t *header = p->payload;
	ip_addr_t to = { 0 };

	if (!uplink_is_on(stack->group) || p->len < (v6 ? IP6_HLEN : IP_HLEN))
		return;
	if (v6) {
		IP_SET_TYPE_VAL(to, IPADDR_TYPE_V6);
		memcpy(ip_2_ip6(&to)->addr, header + 24, sizeof(ip_2_ip6(&to)->addr));
	} else {
		memcpy(&ip_2_ip4(&to)->addr, header + 16, sizeof(ip_2_ip4(&to)->addr));
	}
	if (!address_own_slot(stack->group, &to))
		return;
	if (v6)
		ip_addr_copy(self.netif.ip6_addr[OTHER6], to);
	else
		ip_addr_copy(self.netif.ip_addr, to);
}

void netif_feed(struct protocol_stack *stack, struct rte_mbuf *m, uint32_t bucket)
{
	const struct rte_ether_hdr *ether = rte_pktmbuf_mtod(m, const struct rte_ether_hdr *);
	uint16_t type = ether->ether_type;
	struct pbuf *p;

	worker_count(stack, GZ_COUNT_rx_packets, 1);
	worker_count(stack, GZ_COUNT_rx_bytes, m->pkt_len);
	if (m->pkt_len - RTE_ETHER_HDR_LEN > UINT16_MAX || !rte_pktmbuf_adj(m, RTE_ETHER_HDR_LEN)) {
		worker_count(stack, GZ_COUNT_rx_dropped, 1);
		rte_pktmbuf_free(m);
		return;
	}
	p = lend(m);
	if (bucket != NETIF_NO_BUCKET)
		tcp_table_enter(bucket);
	switch (type) {
	case RTE_BE16(RTE_ETHER_TYPE_IPV4):
		bear(stack, p, false);
		ip4_input(p, &self.netif);
		break;
	case RTE_BE16(RTE_ETHER_TYPE_ARP):
		neighbours_arp(&self.netif, p);
		break;
	case RTE_BE16(RTE_ETHER_TYPE_IPV6):
		bear(stack, p, true);
		ip6_input(p, &self.netif);
		break;
	default:
		pbuf_free(p);
		worker_count(stack, GZ_COUNT_rx_dropped, 1);
	}
	if (bucket != NETIF_NO_BUCKET)
		tcp_table_leave();
}

void netif_return(struct protocol_stack *stack, struct rte_mbuf *m)
{
	struct pbuf *p;

	if (m->pkt_len > UINT16_MAX) {
		worker_count(stack, GZ_COUNT_rx_dropped, 1);
		rte_pktmbuf_free(m);
		return;
	}
	p = lend(m);
	stack->port->ops->send(stack->port, p);
	pbuf_free(p);
}

struct rte_mbuf *netif_reassemble(struct protocol_stack *stack, struct rte_mbuf *m)
{
	const struct ip_hdr *ip = rte_pktmbuf_mtod_offset(m, const struct ip_hdr *, RTE_ETHER_HDR_LEN);

	if (IPH_V(ip) == 4 && lwip_checksum(ip, IPH_HL_BYTES(ip)) != 0xffff) {
		worker_count(stack, GZ_COUNT_rx_bad_checksum, 1);
		rte_pktmbuf_free(m);
		return NULL;
	}
	return fragments_join(stack->port->pool, m, self.now_ms);
}

/* ------------------------------------------------------------------ send */

static err_t send_frame(struct netif *netif, struct pbuf *p)
{
	self.stack->port->ops->send(self.stack->port, p);
	return ERR_OK;
}

/* Copies a pbuf chain that starts at the IP header into a fresh mbuf chain, behind the given Ethernet header. NULL: no mbufs. */
static struct rte_mbuf *to_mbuf(struct protocol_stack *stack, const struct pbuf *p, const uint8_t ethernet[14])
{
	struct mbuf_chain chain;
	bool whole = mbuf_chain_begin(&chain, stack->port->pool) && mbuf_chain_append(&chain, ethernet, RTE_ETHER_HDR_LEN);

	for (; p && whole; p = p->next)
		whole = mbuf_chain_append(&chain, p->payload, p->len);
	return whole ? chain.head : NULL;
}

/* To our own address: both ends are on this stack, perhaps on different workers. It comes in again in the next turn. */
static err_t send_to_self(struct pbuf *p, uint16_t type)
{
	struct protocol_stack *stack = self.stack;
	uint8_t ethernet[14];
	struct rte_mbuf *m;

	memcpy(ethernet, stack->port->mac, 6);
	memcpy(ethernet + 6, stack->port->mac, 6);
	memcpy(ethernet + 12, &type, 2);
	m = self.loop_head - self.loop_tail < LOOP_MAX ? to_mbuf(stack, p, ethernet) : NULL;
	if (!m) {
		worker_count(stack, GZ_COUNT_tx_dropped, 1);
		return ERR_OK; /* a lost frame, as on any wire */
	}
	m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD; /* it never left memory */
	self.loop[self.loop_head++ % LOOP_MAX] = m;
	return ERR_OK;
}

/* The program at the tap gives it the hardware addresses, by the kernel's routes and neighbours. */
static err_t send_to_uplink(struct netif *netif, struct pbuf *p, uint16_t type)
{
	static const struct eth_addr nobody = { GZ_UPLINK_NOBODY };

	return ethernet_output(netif, p, (const struct eth_addr *)netif->hwaddr, &nobody, type);
}

static err_t output4(struct netif *netif, struct pbuf *p, const ip4_addr_t *to)
{
	ip_addr_t at;

	ip_addr_copy_from_ip4(at, *to);
	if (address_own_slot(self.stack->group, &at))
		return send_to_self(p, RTE_BE16(RTE_ETHER_TYPE_IPV4));
	if (uplink_is_on(self.stack->group))
		return send_to_uplink(netif, p, ETHTYPE_IP);
	return neighbours_output4(netif, p, to);
}

static err_t output6(struct netif *netif, struct pbuf *p, const ip6_addr_t *to)
{
	ip_addr_t at;

	ip_addr_copy_from_ip6(at, *to);
	if (address_own_slot(self.stack->group, &at))
		return send_to_self(p, RTE_BE16(RTE_ETHER_TYPE_IPV6));
	if (uplink_is_on(self.stack->group))
		return send_to_uplink(netif, p, ETHTYPE_IPV6);
	return neighbours_output6(netif, p, to);
}

err_t netif_send_datagram(struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *to, uint16_t port, const ip_addr_t *from)
{
	return udp_sendto_if_src(pcb, p, to, port, &self.netif, from);
}

const ip6_addr_t *lwip_gateway6(struct netif *netif, const ip6_addr_t *dest)
{
	(void)netif;
	(void)dest;
	return self.has_gateway6 ? &self.gateway6 : NULL;
}

u16_t lwip_tcp_path_mtu(const ip_addr_t *dest, const struct netif *netif)
{
	return path_mtu_get(dest, true, netif->mtu);
}

u16_t lwip_ip6_path_mtu(const ip6_addr_t *dest, const struct netif *netif)
{
	ip_addr_t to;

	ip_addr_copy_from_ip6(to, *dest);
	return path_mtu_get(&to, false, netif->mtu6);
}

void netif_uncut(bool on)
{
	self.netif.mtu = self.netif.mtu6 = on ? 0 : self.stack->port->mtu; /* to lwIP 0 means no limit */
}

uint32_t netif_looped(void)
{
	return self.loop_head - self.loop_tail;
}

struct rte_mbuf *netif_take_looped(void)
{
	return self.loop[self.loop_tail++ % LOOP_MAX];
}

void netif_flush(struct protocol_stack *stack)
{
	stack->port->ops->flush(stack->port);
}

/* ------------------------------------------------------------------ life */

static err_t init_netif(struct netif *netif)
{
	netif->name[0] = 'g';
	netif->name[1] = 'z';
	netif->mtu = self.stack->port->mtu;
	netif->mtu6 = netif->mtu;
	netif->hwaddr_len = 6;
	memcpy(netif->hwaddr, self.stack->port->mac, 6);
	netif->output = output4;
	netif->output_ip6 = output6;
	netif->linkoutput = send_frame;
	netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHERNET | NETIF_FLAG_LINK_UP;
	if (!uplink_is_on(self.stack->group))
		netif->flags |= NETIF_FLAG_ETHARP;
	/* TCP's and UDP's are verified before steering, TCP's is made by the port. */
	NETIF_SET_CHECKSUM_CTRL(netif, NETIF_CHECKSUM_ENABLE_ALL & ~(NETIF_CHECKSUM_CHECK_TCP |
	                                                             NETIF_CHECKSUM_CHECK_UDP | NETIF_CHECKSUM_GEN_TCP));
	return ERR_OK;
}

/* Static addresses: nothing is asked of routers, and no host is asked whether it has ours. */
static void open6(const struct gz_group_page *group)
{
	bool shared = uplink_is_on(group);
	ip6_addr_t addr = { 0 };

	self.has_gateway6 = !gz_addr_is_any(group->gateway6);
	if (gz_addr_is_any(group->host_addr6) && !shared)
		return;
	memcpy(self.gateway6.addr, group->gateway6, sizeof(self.gateway6.addr));
	memcpy(addr.addr, group->host_addr6, sizeof(addr.addr));
	if (!shared) /* else it is the kernel's */
		netif_create_ip6_linklocal_address(&self.netif, 1);
	netif_ip6_addr_set(&self.netif, OTHER6, &addr);
	netif_ip6_addr_set_state(&self.netif, OTHER6, IP6_ADDR_PREFERRED);
}

int netif_open(struct protocol_stack *stack)
{
	const struct gz_group_page *group = stack->group;
	ip4_addr_t addr = { group->host_addr_be }, mask = { group->netmask_be }, gateway = { group->gateway_be };

	self.stack = stack;
	self.now_ms = (uint32_t)(stack->now_ns / 1000000u);
	lwip_init();
	if (!netif_add(&self.netif, &addr, &mask, &gateway, NULL, init_netif, ip_input))
		return -ENOMEM;
	netif_set_default(&self.netif);
	open6(group);
	netif_set_up(&self.netif); /* announces the address by a gratuitous ARP */
	self.timer_ns = stack->now_ns + SECOND_NS;
	return 0;
}

void netif_timers(struct protocol_stack *stack)
{
	self.now_ms = (uint32_t)(stack->now_ns / 1000000u);
	if (stack->now_ns < self.timer_ns)
		return;
	/* After a long sleep once is enough: ages are coarse, and nothing was waiting. */
	self.timer_ns = stack->now_ns + SECOND_NS;
	neighbours_timer(&self.netif);
	fragments_timer(self.now_ms);
	worker_gauge(stack, GZ_COUNT_mbufs_free, rte_mempool_avail_count(stack->port->pool));
}
