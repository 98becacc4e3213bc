/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A packet nobody here knows goes along a chain: first its owner, then the workers after it by number, each asking its own
 * tables. The record on the ring says how far along the chain it is, so that it ends, and each worker finds the same order
 * by itself from the packet's hash. A SYN may come back to the worker it arrived at: the last resort if the owner runs but
 * does not listen.
 */
#include "net/steer.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <rte_ether.h>
#include <rte_mbuf.h>

#include <lwip/prot/tcp.h>
#include <lwip/udp.h>

#include <gazelle/address.h>
#include <gazelle/atomic.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "apps/apps.h"
#include "packet/checksum.h"
#include "packet/frame.h"
#include "tcp/isn.h"
#include "core/log.h"
#include "net/netif.h"
#include "packet/packet_ring.h"
#include "shared/page.h"
#include "net/path_mtu.h"
#include "port/port.h"
#include "tcp/syncookie.h"
#include "tcp/tcp_table.h"
#include "net/udp_table.h"
#include "core/worker.h"

#define HASH_BYTES 36u /* two IPv6 addresses and two ports */
#define ARP_BYTES (RTE_ETHER_HDR_LEN + 28u)
#define PORT_FIRST 32768u /* as Linux's ip_local_port_range */
#define PORT_LAST 60999u

enum record_kind { RECORD_FLOW, RECORD_FRAGMENT, RECORD_ARP, RECORD_NEIGHBOR };

struct steer {
	struct packet_rings *rings;
	int wake_fd;
	uint32_t next_ring; /* steer_poll goes on here */
	uint32_t next_port;
	uint32_t groups;                      /* [[process]] tables of the plan */
	uint64_t handed[GZ_WORKERS_MAX / 64]; /* workers handed something in this turn */
	uint32_t toeplitz[HASH_BYTES][256];
};

/* Where a packet is on its chain. */
struct journey {
	uint32_t origin; /* the worker whose port it came by */
	int at;          /* our place in the chain; -1: it has just arrived by our own port */
};

/* ------------------------------------------------------------------ hash */

static void fill_toeplitz(struct steer *steer, const uint8_t *key)
{
	for (uint32_t pos = 0; pos < HASH_BYTES; pos++) {
		for (uint32_t value = 0; value < 256; value++) {
			uint32_t hash = 0;

			for (uint32_t bit = 0; bit < 8; bit++) {
				uint64_t window = 0;

				if (!(value & (0x80u >> bit)))
					continue;
				for (uint32_t i = 0; i < 5; i++) /* the key's 32 bits from this bit on */
					window = window << 8 | key[(pos + i) % GZ_RSS_KEY_SIZE];
				hash ^= (uint32_t)(window >> (8 - bit));
			}
			steer->toeplitz[pos][value] = hash;
		}
	}
}

static uint32_t hash_bytes(const struct steer *steer, uint32_t *pos, const void *bytes, uint32_t n)
{
	const uint8_t *p = bytes;
	uint32_t hash = 0;

	for (uint32_t i = 0; i < n; i++)
		hash ^= steer->toeplitz[(*pos)++][p[i]];
	return hash;
}

static uint32_t hash_addresses(const struct steer *steer, const ip_addr_t *remote, const ip_addr_t *local, uint32_t *pos)
{
	uint32_t hash;

	if (IP_IS_V6(remote)) {
		hash = hash_bytes(steer, pos, ip_2_ip6(remote)->addr, 16);
		return hash ^ hash_bytes(steer, pos, ip_2_ip6(local)->addr, 16);
	}
	hash = hash_bytes(steer, pos, &ip_2_ip4(remote)->addr, 4);
	return hash ^ hash_bytes(steer, pos, &ip_2_ip4(local)->addr, 4);
}

uint32_t steer_hash(const struct protocol_stack *stack, const ip_addr_t *remote, uint16_t remote_port,
                    const ip_addr_t *local, uint16_t local_port)
{
	uint8_t ports[4] = { (uint8_t)(remote_port >> 8), (uint8_t)remote_port, (uint8_t)(local_port >> 8),
		             (uint8_t)local_port };
	uint32_t pos = 0, hash = hash_addresses(stack->steer, remote, local, &pos);

	return hash ^ hash_bytes(stack->steer, &pos, ports, 4);
}

static uint32_t owner_of(const struct protocol_stack *stack, const struct frame *frame)
{
	uint32_t hash, pos = 0;

	if (frame->kind == FRAME_FRAGMENT)
		hash = hash_addresses(stack->steer, &frame->remote, &frame->local, &pos);
	else
		hash = steer_hash(stack, &frame->remote, frame->remote_port, &frame->local, frame->local_port);
	return stack->group->reta[hash % GZ_RETA_SIZE];
}

/* ------------------------------------------------------------------ hand over */

/* Copies a frame into worker q's ring. The mbuf stays ours. */
static void hand_over(struct protocol_stack *stack, uint32_t q, const struct rte_mbuf *m, enum record_kind kind,
                      uint32_t origin, uint32_t at)
{
	struct packet_ring *ring = packet_ring_of(stack->steer->rings, stack->queue_id, q);
	struct packet_record record = {
		.len = m->pkt_len, .kind = (uint8_t)kind, .visits = (uint8_t)at, .origin = (uint16_t)origin
	};
	uint32_t off = 0;

	if (!packet_ring_has_room(ring, m->pkt_len)) {
		worker_count(stack, GZ_COUNT_steer_dropped, 1);
		return;
	}
	for (; m; m = m->next) {
		packet_ring_put(ring, &record, off, rte_pktmbuf_mtod(m, void *), m->data_len);
		off += m->data_len;
	}
	packet_ring_commit(ring, &record);
	stack->steer->handed[q / 64] |= 1ull << (q % 64);
	worker_count(stack, GZ_COUNT_steered_out, 1);
}

void steer_flush(struct protocol_stack *stack)
{
	struct steer *steer = stack->steer;

	for (uint32_t w = 0; w < GZ_WORKERS_MAX / 64; w++) {
		for (uint64_t bits = steer->handed[w]; bits; bits &= bits - 1) {
			uint32_t q = w * 64 + (uint32_t)__builtin_ctzll(bits);
			struct sockaddr_un addr = { .sun_family = AF_UNIX };

			gz_fence(); /* pairs with the sleeper's between declaring and looking into its rings */
			if (!stack->pages[q] || !gz_load(&stack->pages[q]->asleep))
				continue;
			snprintf(addr.sun_path, sizeof(addr.sun_path), "%.90s/worker.%u.wake", stack->group->run_dir, q);
			/* A full socket will wake it as well; a missing one is a worker that has just died. */
			(void)sendto(steer->wake_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&addr,
			             sizeof(addr));
		}
		steer->handed[w] = 0;
	}
}

/* ------------------------------------------------------------------ decide */

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
	       !stack->draining &&
	       syncookie_sent(&frame->local, frame->local_port, &frame->remote, frame->remote_port,
	                      rte_be_to_cpu_32(tcp->seqno), rte_be_to_cpu_32(tcp->ackno)) &&
	       tcp_table_listens(&frame->local, frame->local_port);
}

static void drop(struct protocol_stack *stack, struct rte_mbuf *m, enum gz_counter why)
{
	worker_count(stack, why, 1);
	rte_pktmbuf_free(m);
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
		hand_over(stack, (uint32_t)next, m, RECORD_FLOW, journey.origin, at);
		rte_pktmbuf_free(m);
		return;
	}
	if (!listens) {
		worker_count(stack, GZ_COUNT_no_match, 1);
		if (syn && (stack->draining || apps_expect_listener(stack, frame->local_port))) {
			rte_pktmbuf_free(m); /* the peer tries again; a RST now would tell it that nobody will ever listen */
			return;
		}
	}
ours:
	if (frame->mtu) {
		if (path_mtu_of_connection(frame, bucket))
			rte_pktmbuf_free(m);
		else
			drop(stack, m, GZ_COUNT_rx_dropped); /* it quotes nothing that is under way */
		return;
	}
	tcp_table_listeners(frame->local_port);
	netif_feed(stack, m, frame->kind == FRAME_TCP ? bucket : NETIF_NO_BUCKET);
}

static void steer_frame(struct protocol_stack *stack, struct rte_mbuf *m, struct journey journey);

/* The fragments of a datagram meet at one worker, which steers the whole. */
static void steer_fragment(struct protocol_stack *stack, struct rte_mbuf *m, const struct frame *frame,
                           struct journey journey)
{
	uint32_t owner = owner_of(stack, frame);

	if (journey.at < 0 && owner != stack->queue_id && page_serving(stack, owner)) {
		hand_over(stack, owner, m, RECORD_FRAGMENT, journey.origin, 0);
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
			hand_over(stack, q, copy, RECORD_ARP, stack->queue_id, 0);
	rte_pktmbuf_free(copy);
}

/* Of a neighbour, or of a path that takes less: everybody may have asked for it; who has not does not mind. */
static void copy_to_all(struct protocol_stack *stack, const struct rte_mbuf *m)
{
	for (uint32_t q = 0; q < stack->group->tot_queue_num; q++)
		if (q != stack->queue_id && page_running(stack, q))
			hand_over(stack, q, m, RECORD_NEIGHBOR, stack->queue_id, 0);
}

/* True if the frame is to the stack's own address of its family, not to a group or to somebody else. */
static bool to_us(const struct protocol_stack *stack, const struct frame *frame)
{
	const uint8_t *own6 = stack->group->host_addr6;

	if (IP_IS_V4_VAL(frame->local))
		return ip_2_ip4(&frame->local)->addr == stack->group->host_addr_be;
	return !gz_addr_is_any(own6) && !memcmp(ip_2_ip6(&frame->local)->addr, own6, 16);
}

/* An ICMP error about a datagram or a path is not lwIP's, which would verify it. */
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
 * them. So what nobody here wants is for the next group: one hop where there are two. -1: all have been asked.
 */
static int next_group(struct protocol_stack *stack, const struct frame *frame, struct journey journey, uint32_t *at)
{
	const struct gz_worker_plan *plan = stack->group->workers;
	uint32_t count = stack->group->tot_queue_num, groups = stack->steer->groups, first, hash;

	if (groups < 2 || !to_us(stack, frame))
		return -1;
	first = plan[journey.origin].process_index;
	hash = steer_hash(stack, &frame->remote, frame->remote_port, &frame->local, frame->local_port);
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
	int next = has_datagram_socket(frame) ? -1 : next_group(stack, frame, journey, &at);

	if (next < 0) {
		netif_feed(stack, m, NETIF_NO_BUCKET);
		return;
	}
	hand_over(stack, (uint32_t)next, m, RECORD_FLOW, journey.origin, at);
	rte_pktmbuf_free(m);
}

/*
 * About a datagram. A path that takes less than the device is told to all workers, since each sends there by itself; those
 * copies have visited nobody.
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
		hand_over(stack, (uint32_t)next, m, RECORD_FLOW, journey.origin, at);
	else if (!copied)
		apps_icmp(frame, rte_pktmbuf_mtod_offset(m, const uint8_t *, frame->l4));
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
		if ((frame.udp || frame.mtu) && !icmp_checksum_ok(m, &frame))
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

	/* Promiscuous devices hear what is for others. */
	if (m->data_len < RTE_ETHER_HDR_LEN || (!(to[0] & 1) && memcmp(to, stack->port->mac, 6))) {
		drop(stack, m, GZ_COUNT_rx_dropped);
		return;
	}
	steer_frame(stack, m, (struct journey){ .origin = stack->queue_id, .at = -1 });
}

/* ------------------------------------------------------------------ take over */

/* The peeked record as an mbuf chain; NULL: no mbufs. */
static struct rte_mbuf *read_record(struct protocol_stack *stack, const struct packet_ring *ring, uint32_t len)
{
	struct rte_mbuf *head = rte_pktmbuf_alloc(stack->port->pool), *m = head;
	uint32_t off = 0;

	if (!head)
		return NULL;
	for (;;) {
		uint32_t n = rte_pktmbuf_tailroom(m);

		n = n < len - off ? n : len - off;
		packet_ring_get(ring, off, rte_pktmbuf_mtod(m, void *), n);
		m->data_len = (uint16_t)n;
		off += n;
		if (off == len)
			break;
		m->next = rte_pktmbuf_alloc(stack->port->pool);
		if (!m->next) {
			rte_pktmbuf_free(head);
			return NULL;
		}
		m = m->next;
		head->nb_segs++;
	}
	head->pkt_len = len;
	head->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD; /* whoever handed it over has verified it */
	return head;
}

static uint32_t poll_ring(struct protocol_stack *stack, struct packet_ring *ring, uint32_t from, uint32_t budget)
{
	struct packet_record record;
	uint32_t done = 0;
	bool broken;

	while (done < budget && packet_ring_peek(ring, &record, &broken)) {
		struct rte_mbuf *m = record.len >= RTE_ETHER_HDR_LEN ? read_record(stack, ring, record.len) : NULL;

		packet_ring_drop(ring, &record);
		done++;
		if (!m) {
			worker_count(stack, GZ_COUNT_steer_dropped, 1);
			continue;
		}
		worker_count(stack, GZ_COUNT_steered_in, 1);
		if (record.kind == RECORD_FRAGMENT)
			m->ol_flags &= ~(uint64_t)RTE_MBUF_F_RX_L4_CKSUM_GOOD;
		steer_frame(stack, m, (struct journey){ .origin = record.origin, .at = record.visits });
	}
	if (!done && broken) {
		log_warn("ring from worker %u held nonsense and was emptied", from);
		worker_count(stack, GZ_COUNT_steer_dropped, 1);
	}
	return done;
}

uint32_t steer_poll(struct protocol_stack *stack, uint32_t budget)
{
	struct steer *steer = stack->steer;
	uint32_t count = stack->group->tot_queue_num, done = 0;

	for (uint32_t i = 0; i < count && done < budget; i++) {
		uint32_t q = (steer->next_ring + i) % count;
		struct packet_ring *ring = packet_ring_of(steer->rings, q, stack->queue_id);

		if (q != stack->queue_id && packet_ring_pending(ring))
			done += poll_ring(stack, ring, q, budget - done);
	}
	steer->next_ring = (steer->next_ring + 1) % count;
	return done;
}

bool steer_pending(const struct protocol_stack *stack)
{
	for (uint32_t q = 0; q < stack->group->tot_queue_num; q++)
		if (q != stack->queue_id && packet_ring_pending(packet_ring_of(stack->steer->rings, q, stack->queue_id)))
			return true;
	return false;
}

void steer_woken(struct protocol_stack *stack)
{
	char byte[8];

	for (int i = 0; i < 64 && recv(stack->steer->wake_fd, byte, sizeof(byte), MSG_DONTWAIT) >= 0; i++)
		;
}

/* ------------------------------------------------------------------ ports */

/* True if a worker of the instance has published a listener on this port. */
static bool listener_published(const struct protocol_stack *stack, uint16_t port)
{
	for (uint32_t q = 0; q < stack->group->tot_queue_num; q++) {
		const struct gz_worker_page *page = stack->pages[q];

		for (uint32_t i = 0; page && i < GZ_LISTENERS_MAX; i++)
			if (gz_load(&page->listeners[i].port_owner) >> 16 == port)
				return true;
	}
	return false;
}

uint16_t steer_pick_port(struct protocol_stack *stack, const ip_addr_t *local, const ip_addr_t *remote, uint16_t remote_port)
{
	uint32_t range = PORT_LAST - PORT_FIRST + 1, home = stack->group->split ? stack->queue_id & ~1u : stack->queue_id;
	struct steer *steer = stack->steer;

	/* Once for ports whose replies come to us by themselves, once for any: the connection table would find those, too. */
	for (int any = 0; any < 2; any++) {
		for (uint32_t i = 0; i < range; i++) {
			uint16_t port = (uint16_t)(PORT_FIRST + (steer->next_port + i) % range);
			uint32_t hash = any ? 0 : steer_hash(stack, remote, remote_port, local, port);

			if (!any && stack->group->reta[hash % GZ_RETA_SIZE] != home)
				continue;
			if (tcp_table_has(local, port, remote, remote_port) &&
			    !tcp_table_reuse(local, port, remote, remote_port))
				continue;
			if (listener_published(stack, port))
				continue;
			steer->next_port = (steer->next_port + i + 1) % range;
			return port;
		}
	}
	return 0;
}

/* ------------------------------------------------------------------ life */

static int open_wake_socket(struct protocol_stack *stack)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = &stack->steer };
	const struct gz_group_page *group = stack->group;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd, err;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.90s/worker.%u.wake", group->run_dir, stack->queue_id);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	unlink(addr.sun_path); /* a predecessor's; the plan gives this path to us alone */
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || chmod(addr.sun_path, 0600) ||
	    (group->run_uid && chown(addr.sun_path, group->run_uid, group->run_gid)) ||
	    epoll_ctl(stack->epoll_fd, EPOLL_CTL_ADD, fd, &event)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int steer_open(struct protocol_stack *stack)
{
	struct steer *steer = calloc(1, sizeof(*steer));
	int err;

	if (!steer)
		return -ENOMEM;
	fill_toeplitz(steer, stack->group->rss_key);
	for (uint32_t q = 0; q < stack->group->tot_queue_num; q++)
		if (stack->group->workers[q].process_index >= steer->groups)
			steer->groups = stack->group->workers[q].process_index + 1;
	steer->next_port = lwip_random() % (PORT_LAST - PORT_FIRST + 1);
	err = packet_rings_open(stack->group->run_dir, stack->group->tot_queue_num, stack->queue_id, &steer->rings);
	if (err)
		goto err_free_steer;
	steer->wake_fd = open_wake_socket(stack);
	if (steer->wake_fd < 0) {
		err = steer->wake_fd;
		goto err_close_rings;
	}
	stack->steer = steer;
	return 0;

err_close_rings:
	packet_rings_close(steer->rings);
err_free_steer:
	free(steer);
	return err;
}
