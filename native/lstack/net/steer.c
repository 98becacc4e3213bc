/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A packet of a flow that this worker does not know goes along a chain: first to its owner, then to the workers after it by
 * number; each looks into its own tables. The record on the ring says how far along the chain the packet is, so that the chain
 * ends, and each worker computes the same order from the packet's hash. A SYN may come back to the worker it arrived at: that
 * one takes it if the owner runs but does not listen.
 */
#include "net/steer.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include <rte_ether.h>
#include <rte_mbuf.h>

#include <lwip/prot/tcp.h>
#include <lwip/udp.h>

#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "core/worker.h"
#include "net/address.h"
#include "net/handover.h"
#include "net/local_port.h"
#include "net/netif.h"
#include "net/path_mtu.h"
#include "net/rss.h"
#include "net/udp_table.h"
#include "net/unreachable.h"
#include "net/uplink.h"
#include "packet/checksum.h"
#include "packet/frame.h"
#include "port/port.h"
#include "shared/page.h"
#include "tcp/syncookie.h"
#include "tcp/tcp_table.h"

#define ARP_BYTES (RTE_ETHER_HDR_LEN + 28u)
/* For this long after its start a worker answers no SYN by RST: listeners are coming back. */
#define YOUNG_NS 1000000000ull

/* Where a packet is on its chain. */
struct journey {
	uint32_t origin; /* the worker whose port it came by */
	int at;          /* our place in the chain; -1: it has just arrived by our own port */
};

static uint32_t owner_of(const struct protocol_stack *stack, const struct frame *frame)
{
	uint32_t hash;

	if (frame->kind == FRAME_FRAGMENT)
		hash = rss_hash_addresses(stack->rss, &frame->remote, &frame->local);
	else
		hash = rss_hash(stack->rss, &frame->remote, frame->remote_port, &frame->local, frame->local_port);
	return stack->group->reta[hash % GZ_RETA_SIZE];
}

/* The next worker to ask, or -1: we are the last. */
static int next_on_chain(struct protocol_stack *stack, uint32_t owner, bool syn, struct journey journey, uint32_t *at)
{
	uint32_t count = stack->group->tot_queue_num;

	for (uint32_t i = (uint32_t)(journey.at + 1); i < count; i++) {
		uint32_t q = (owner + i) % count;

		if (q == stack->queue_id || (q == journey.origin && !syn))
			continue;
		if (syn ? !page_running(stack, q) : !page_serving(stack, q))
			continue;
		*at = i;
		return (int)q;
	}
	return -1;
}

/* An ACK that completes a handshake of which only its sender remembers anything. */
static bool completes(const struct protocol_stack *stack, const struct rte_mbuf *m, const struct frame *frame)
{
	const struct tcp_hdr *tcp = rte_pktmbuf_mtod_offset(m, const struct tcp_hdr *, frame->l4);

	return frame->kind == FRAME_TCP && (frame->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_ACK &&
	       syncookie_sent(&frame->local, frame->local_port, &frame->remote, frame->remote_port,
	                      rte_be_to_cpu_32(tcp->seqno), rte_be_to_cpu_32(tcp->ackno)) &&
	       tcp_table_listens(&frame->local, frame->local_port);
}

static void drop(struct protocol_stack *stack, struct rte_mbuf *m, enum gz_counter why)
{
	worker_count(stack, why, 1);
	rte_pktmbuf_free(m);
}

/*
 * Beside the kernel: a program on the kernel may have this port at another of our addresses, or in the other family. If none has
 * it, the kernel answers so. The sender may have left the checksum to the device that sends the frame; the port makes TCP's.
 */
static void return_to_kernel(struct protocol_stack *stack, struct rte_mbuf *m, const struct frame *frame)
{
	if (frame->kind == FRAME_UDP)
		frame_write_checksum(m, frame);
	netif_return(stack, m);
}

/* A TCP frame, or an ICMP error about one. */
static void steer_flow(struct protocol_stack *stack, struct rte_mbuf *m, const struct frame *frame, struct journey journey)
{
	uint32_t bucket = tcp_table_bucket(&frame->local, frame->local_port, &frame->remote, frame->remote_port), owner, at;
	bool syn = frame->kind == FRAME_TCP && (frame->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN,
	     listens = false;
	int next;

	if (tcp_table_has_in(bucket, &frame->local, frame->local_port, &frame->remote, frame->remote_port) ||
	    completes(stack, m, frame))
		goto ours;
	owner = owner_of(stack, frame);
	if (syn) {
		listens = !stack->draining && tcp_table_listens(&frame->local, frame->local_port);
		if (listens && (owner == stack->queue_id || journey.at > 0 || !page_running(stack, owner)))
			goto ours;
	}
	next = next_on_chain(stack, owner, syn, journey, &at);
	if (next >= 0) {
		handover_send(stack, (uint32_t)next, m, HANDOVER_FLOW, journey.origin, at);
		rte_pktmbuf_free(m);
		return;
	}
	if (!listens && uplink_is_on(stack->group) && !frame->mtu) {
		return_to_kernel(stack, m, frame);
		return;
	}
	if (!listens) {
		worker_count(stack, GZ_COUNT_no_match, 1);
		if (syn && (stack->draining || stack->now_ns - stack->started_ns < YOUNG_NS)) {
			rte_pktmbuf_free(m); /* the peer tries again; a RST now would tell it that nobody will ever listen */
			return;
		}
	}
ours:
	if (frame->kind == FRAME_ICMP_ERROR && !frame->mtu) {
		unreachable_icmp(frame, rte_pktmbuf_mtod_offset(m, const uint8_t *, frame->l4));
		rte_pktmbuf_free(m);
		return;
	}
	if (frame->mtu) {
		if (path_mtu_of_connection(frame, bucket))
			rte_pktmbuf_free(m);
		else
			drop(stack, m, GZ_COUNT_rx_dropped); /* it quotes nothing that is under way */
		return;
	}
	tcp_table_listeners(frame->local_port);
	netif_feed(stack, m, bucket);
}

static void steer_frame(struct protocol_stack *stack, struct rte_mbuf *m, struct journey journey);

/* The fragments of a datagram go to one worker, which steers the whole. */
static void steer_fragment(struct protocol_stack *stack, struct rte_mbuf *m, const struct frame *frame,
                           struct journey journey)
{
	uint32_t owner = owner_of(stack, frame);

	if (journey.at < 0 && owner != stack->queue_id && page_serving(stack, owner)) {
		handover_send(stack, owner, m, HANDOVER_FRAGMENT, journey.origin, 0);
		rte_pktmbuf_free(m);
		return;
	}
	m = netif_reassemble(stack, m);
	if (m)
		steer_frame(stack, m, (struct journey){ .origin = stack->queue_id, .at = -1 });
}

/* Others learn the sender of an ARP packet to us from a reply made of it; only we answer. */
static void copy_arp(struct protocol_stack *stack, const struct rte_mbuf *m)
{
	const uint8_t *arp = rte_pktmbuf_mtod_offset(m, const uint8_t *, RTE_ETHER_HDR_LEN);
	struct rte_mbuf *copy;
	uint8_t *reply;

	if (stack->group->tot_queue_num < 2 || memcmp(arp + 24, &stack->group->host_addr_be, 4))
		return;
	copy = rte_pktmbuf_alloc(stack->port->pool);
	if (!copy)
		return;
	reply = (uint8_t *)rte_pktmbuf_append(copy, ARP_BYTES);
	memcpy(reply, rte_pktmbuf_mtod(m, void *), ARP_BYTES);
	reply[RTE_ETHER_HDR_LEN + 6] = 0;
	reply[RTE_ETHER_HDR_LEN + 7] = 2; /* "is at" */
	memcpy(reply + RTE_ETHER_HDR_LEN + 18, stack->port->mac, 6);
	for (uint32_t q = 0; q < stack->group->tot_queue_num; q++)
		if (q != stack->queue_id && page_running(stack, q))
			handover_send(stack, q, copy, HANDOVER_ARP, stack->queue_id, 0);
	rte_pktmbuf_free(copy);
}

/* News of a neighbour, or of a path that takes less. Each worker may have asked for it; to the others it does no harm. */
static void copy_to_all(struct protocol_stack *stack, const struct rte_mbuf *m)
{
	for (uint32_t q = 0; q < stack->group->tot_queue_num; q++)
		if (q != stack->queue_id && page_running(stack, q))
			handover_send(stack, q, m, HANDOVER_NEIGHBOR, stack->queue_id, 0);
}

/* True if the frame is to an address of the stack, not to a group or to another host. */
static bool to_us(const struct protocol_stack *stack, const struct frame *frame)
{
	return address_own_slot(stack->group, &frame->local);
}

/* ICMP errors are not lwIP's, which would verify them. */
static bool icmp_checksum_ok(const struct rte_mbuf *m, const struct frame *frame)
{
	uint64_t sum = checksum_mbuf(m, frame->l4, frame->l4_len);

	if (IP_IS_V6_VAL(frame->local))
		sum += checksum_pseudo(rte_pktmbuf_mtod_offset(m, const uint8_t *, frame->l3), IPPROTO_ICMPV6,
		                       frame->l4_len);
	return checksum_fold(sum) == 0xffff;
}

static bool has_datagram_socket(const struct frame *frame)
{
	udp_table_turn_to(frame->local_port);
	for (const struct udp_pcb *pcb = udp_pcbs; pcb; pcb = pcb->next)
		if (pcb->local_port == frame->local_port &&
		    (IP_IS_ANY_TYPE_VAL(pcb->local_ip) || IP_IS_V6_VAL(pcb->local_ip) == IP_IS_V6_VAL(frame->local)) &&
		    (ip_addr_isany(&pcb->local_ip) || ip_addr_cmp(&pcb->local_ip, &frame->local)) &&
		    (!(pcb->flags & UDP_FLAGS_CONNECTED) ||
		     (pcb->remote_port == frame->remote_port && ip_addr_cmp(&pcb->remote_ip, &frame->remote))))
			return true;
	return false;
}

/*
 * Every worker of a process group has every datagram socket of the group's programs; another group's workers have none of
 * them. So what has no socket in this group goes to the next group: one hop where there are two. -1: all have been asked.
 */
static int next_group(struct protocol_stack *stack, const struct frame *frame, struct journey journey, uint32_t *at)
{
	const struct gz_worker_plan *plan = stack->group->workers;
	uint32_t count = stack->group->tot_queue_num, groups = stack->process_groups, first, hash;

	if (groups < 2 || !to_us(stack, frame))
		return -1;
	first = plan[journey.origin].process_index;
	hash = rss_hash(stack->rss, &frame->remote, frame->remote_port, &frame->local, frame->local_port);
	for (uint32_t i = (uint32_t)(journey.at < 0 ? 0 : journey.at) + 1; i < groups; i++) {
		for (uint32_t k = 0; k < count; k++) {
			uint32_t q = (hash + k) % count; /* one flow, one worker: in order */

			if (plan[q].process_index != (first + i) % groups || !page_serving(stack, q))
				continue;
			*at = i;
			return (int)q;
		}
	}
	return -1;
}

static void steer_datagram(struct protocol_stack *stack, struct rte_mbuf *m, const struct frame *frame,
                           struct journey journey)
{
	uint32_t at;
	bool has = has_datagram_socket(frame);
	int next = has ? -1 : next_group(stack, frame, journey, &at);

	if (next >= 0) {
		handover_send(stack, (uint32_t)next, m, HANDOVER_FLOW, journey.origin, at);
		rte_pktmbuf_free(m);
	} else if (!has && uplink_is_on(stack->group) && to_us(stack, frame)) {
		return_to_kernel(stack, m, frame);
	} else {
		netif_feed(stack, m, NETIF_NO_BUCKET);
	}
}

/*
 * About a datagram. A path that takes less than the device is told to all workers, since each sends there by itself; those
 * copies have visited no worker before.
 */
static void datagram_error(struct protocol_stack *stack, struct rte_mbuf *m, const struct frame *frame,
                           struct journey journey)
{
	bool has = has_datagram_socket(frame), copied = journey.at == 0;
	uint32_t at;
	int next = has || copied ? -1 : next_group(stack, frame, journey, &at);

	if (frame->mtu && has)
		path_mtu_of_datagram(frame);
	if (frame->mtu && journey.at < 0)
		copy_to_all(stack, m);
	if (next >= 0)
		handover_send(stack, (uint32_t)next, m, HANDOVER_FLOW, journey.origin, at);
	else if (!copied)
		udp_table_error(frame, rte_pktmbuf_mtod_offset(m, const uint8_t *, frame->l4));
	rte_pktmbuf_free(m);
}

static void steer_frame(struct protocol_stack *stack, struct rte_mbuf *m, struct journey journey)
{
	struct frame frame;

	frame_parse(m, &frame);
	if (frame.mtu && frame.mtu >= stack->port->mtu)
		frame.kind = FRAME_BAD; /* no path takes more than its first link */
	switch (frame.kind) {
	case FRAME_TCP:
	case FRAME_UDP:
		if (frame.kind == FRAME_TCP && !to_us(stack, &frame)) {
			drop(stack, m, GZ_COUNT_rx_dropped); /* not to us, or to everybody: TCP has no use for it */
			return;
		}
		if (!(m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_GOOD) &&
		    !frame_checksum_ok(m, &frame, stack->group->trust_rx_checksum)) {
			drop(stack, m, GZ_COUNT_rx_bad_checksum);
			return;
		}
		if (frame.kind == FRAME_TCP)
			steer_flow(stack, m, &frame, journey);
		else
			steer_datagram(stack, m, &frame, journey);
		return;
	case FRAME_ICMP_ERROR:
		if (!icmp_checksum_ok(m, &frame))
			drop(stack, m, GZ_COUNT_rx_bad_checksum);
		else if (frame.udp)
			datagram_error(stack, m, &frame, journey);
		else
			steer_flow(stack, m, &frame, journey);
		return;
	case FRAME_FRAGMENT:
		if (to_us(stack, &frame))
			steer_fragment(stack, m, &frame, journey);
		else
			drop(stack, m, GZ_COUNT_rx_dropped);
		return;
	case FRAME_ARP:
		if (journey.at < 0)
			copy_arp(stack, m);
		netif_feed(stack, m, NETIF_NO_BUCKET);
		return;
	case FRAME_NEIGHBOR:
		if (journey.at < 0)
			copy_to_all(stack, m);
		netif_feed(stack, m, NETIF_NO_BUCKET);
		return;
	case FRAME_OTHER:
		netif_feed(stack, m, NETIF_NO_BUCKET);
		return;
	case FRAME_BAD:
		break;
	}
	drop(stack, m, GZ_COUNT_rx_dropped);
}

/* A frame with a priority but of no VLAN is as one without a tag (IEEE 802.1Q, 6.9). */
static void untag(struct rte_mbuf *m)
{
	uint8_t *frame = rte_pktmbuf_mtod(m, uint8_t *);

	if (m->data_len < RTE_ETHER_HDR_LEN + 4 || frame[12] != 0x81 || frame[13] || frame[14] & 0x0f || frame[15])
		return;
	memmove(frame + 4, frame, 2 * RTE_ETHER_ADDR_LEN);
	rte_pktmbuf_adj(m, 4);
}

void steer_input(struct protocol_stack *stack, struct rte_mbuf *m)
{
	untag(m);
	const uint8_t *to = rte_pktmbuf_mtod(m, const uint8_t *);

	/* Promiscuous devices hear what is for others. Beside the kernel it is the kernel who has told, and its address may change. */
	if (m->data_len < RTE_ETHER_HDR_LEN ||
	    (!(to[0] & 1) && memcmp(to, stack->port->mac, 6) && !uplink_is_on(stack->group))) {
		drop(stack, m, GZ_COUNT_rx_dropped);
		return;
	}
	steer_frame(stack, m, (struct journey){ .origin = stack->queue_id, .at = -1 });
}

static void steer_handed(struct protocol_stack *stack, struct rte_mbuf *m, uint32_t origin, uint32_t at)
{
	steer_frame(stack, m, (struct journey){ .origin = origin, .at = (int)at });
}

uint32_t steer_poll(struct protocol_stack *stack, uint32_t budget)
{
	return handover_poll(stack, budget, steer_handed);
}

int steer_open(struct protocol_stack *stack)
{
	const struct gz_group_page *group = stack->group;

	for (uint32_t q = 0; q < group->tot_queue_num; q++)
		if (group->workers[q].process_index >= stack->process_groups)
			stack->process_groups = group->workers[q].process_index + 1;
	stack->rss = rss_create(group->rss_key);
	if (!stack->rss)
		return -ENOMEM;
	local_port_open(stack);
	return handover_open(stack);
}
