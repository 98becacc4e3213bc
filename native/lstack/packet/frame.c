/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "packet/frame.h"

#include <netinet/in.h>
#include <string.h>

#include <rte_ether.h>
#include <rte_mbuf.h>

#include <lwip/def.h>

#include "packet/checksum.h"

#define ICMP_UNREACHABLE 3
#define ICMP_FRAGMENTATION_NEEDED 4
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP6_UNREACHABLE 1
#define ICMP6_TOO_BIG 2
#define ICMP6_PARAMETER 4
#define ICMP6_ADVERTISEMENT 136
#define IP6_LEAST_MTU 1280u

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* Ports and flags. False: too short. */
static bool parse_transport(const uint8_t *l4, uint32_t have, uint8_t protocol, struct frame *frame)
{
	if (have < (protocol == IPPROTO_TCP ? 20u : 8u) || frame->l4_len < (protocol == IPPROTO_TCP ? 20u : 8u))
		return false;
	frame->remote_port = get16(l4);
	frame->local_port = get16(l4 + 2);
	frame->tcp_flags = protocol == IPPROTO_TCP ? l4[13] & 0x3f : 0;
	frame->kind = protocol == IPPROTO_TCP ? FRAME_TCP : FRAME_UDP;
	return true;
}

/* The flow an ICMP error is about: the packet inside is one of ours. */
static void parse_icmp(const uint8_t *icmp, uint32_t have, struct frame *frame)
{
	const uint8_t *inner = icmp + 8, *ports;
	uint32_t header;

	if (have < 8 + 20 + 8 ||
	    (icmp[0] != ICMP_UNREACHABLE && icmp[0] != ICMP_TIME_EXCEEDED && icmp[0] != ICMP_PARAMETER))
		return;
	header = (inner[0] & 15u) * 4;
	if (inner[0] >> 4 != 4 || header < 20 || have < 8 + header + 8 || get16(inner + 6) & 0x1fffu ||
	    (inner[9] != IPPROTO_TCP && inner[9] != IPPROTO_UDP))
		return; /* not of ours, or a later fragment, which has no ports */
	ports = inner + header;
	memcpy(&ip_2_ip4(&frame->local)->addr, inner + 12, 4);
	memcpy(&ip_2_ip4(&frame->remote)->addr, inner + 16, 4);
	frame->local_port = get16(ports);
	frame->remote_port = get16(ports + 2);
	frame->udp = inner[9] == IPPROTO_UDP;
	frame->seq = get32(ports + 4);
	if (icmp[0] == ICMP_UNREACHABLE && icmp[1] == ICMP_FRAGMENTATION_NEEDED && !frame->udp) {
		frame->mtu = get16(icmp + 6);
		frame->mtu += !frame->mtu; /* an old router does not say how much (RFC 1191, 4): as little as possible */
	}
	frame->kind = FRAME_ICMP_ERROR;
}

static void parse_ipv4(const struct rte_mbuf *m, const uint8_t *ip, uint32_t have, struct frame *frame)
{
	uint32_t header = (ip[0] & 15u) * 4, total, fragment;

	if (have < 20 || ip[0] >> 4 != 4 || header < 20 || have < header)
		return;
	total = get16(ip + 2);
	if (total < header || total > m->pkt_len - frame->l3)
		return;
	frame->kind = FRAME_OTHER;
	frame->l4 = frame->l3 + header;
	frame->l4_len = total - header;
	IP_SET_TYPE_VAL(frame->local, IPADDR_TYPE_V4);
	IP_SET_TYPE_VAL(frame->remote, IPADDR_TYPE_V4);
	memcpy(&ip_2_ip4(&frame->remote)->addr, ip + 12, 4);
	memcpy(&ip_2_ip4(&frame->local)->addr, ip + 16, 4);
	fragment = get16(ip + 6) & 0x3fffu;
	if (fragment)
		frame->kind = FRAME_FRAGMENT;
	else if (ip[9] == IPPROTO_TCP || ip[9] == IPPROTO_UDP)
		frame->kind = parse_transport(ip + header, have - header, ip[9], frame) ? frame->kind : FRAME_BAD;
	else if (ip[9] == IPPROTO_ICMP)
		parse_icmp(ip + header, have - header, frame);
}

/* As parse_icmp, and advertisements. What was cut here already may be too big as well: its first piece has the ports. */
static void parse_icmp6(const uint8_t *icmp, uint32_t have, struct frame *frame)
{
	const uint8_t *inner = icmp + 8, *ports = inner + 40;
	uint32_t mtu = 0;
	uint8_t protocol;

	if (have >= 24 && icmp[0] == ICMP6_ADVERTISEMENT)
		frame->kind = FRAME_NEIGHBOR;
	if (have >= 8 && icmp[0] == ICMP6_TOO_BIG) {
		mtu = get32(icmp + 4);
		frame->kind = FRAME_BAD; /* unless it is about a flow of ours, and the path takes what each does (RFC 8201, 4) */
	}
	if (have < 8 + 40 + 8 || icmp[0] < ICMP6_UNREACHABLE || icmp[0] > ICMP6_PARAMETER || inner[0] >> 4 != 6)
		return;
	protocol = inner[6];
	if (protocol == IPPROTO_FRAGMENT && have >= 8 + 40 + 8 + 8 && !(get16(inner + 42) & 0xfff8u)) {
		protocol = inner[40];
		ports += 8;
	}
	if ((protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) || (icmp[0] == ICMP6_TOO_BIG && mtu < IP6_LEAST_MTU))
		return;
	memcpy(ip_2_ip6(&frame->local)->addr, inner + 8, 16);
	memcpy(ip_2_ip6(&frame->remote)->addr, inner + 24, 16);
	frame->local_port = get16(ports);
	frame->remote_port = get16(ports + 2);
	frame->udp = protocol == IPPROTO_UDP;
	frame->seq = get32(ports + 4);
	frame->mtu = mtu;
	frame->kind = FRAME_ICMP_ERROR;
}

static void parse_ipv6(const struct rte_mbuf *m, const uint8_t *ip, uint32_t have, struct frame *frame)
{
	uint32_t payload;

	if (have < 40 || ip[0] >> 4 != 6)
		return;
	payload = get16(ip + 4);
	if (payload + 40 > m->pkt_len - frame->l3)
		return;
	frame->kind = FRAME_OTHER;
	frame->l4 = frame->l3 + 40;
	frame->l4_len = payload;
	memset(&frame->local, 0, sizeof(frame->local));
	memset(&frame->remote, 0, sizeof(frame->remote));
	IP_SET_TYPE_VAL(frame->local, IPADDR_TYPE_V6);
	IP_SET_TYPE_VAL(frame->remote, IPADDR_TYPE_V6);
	memcpy(ip_2_ip6(&frame->remote)->addr, ip + 8, 16);
	memcpy(ip_2_ip6(&frame->local)->addr, ip + 24, 16);
	if (ip[6] == IPPROTO_TCP || ip[6] == IPPROTO_UDP)
		frame->kind = parse_transport(ip + 40, have - 40, ip[6], frame) ? frame->kind : FRAME_BAD;
	else if (ip[6] == IPPROTO_FRAGMENT)
		frame->kind = payload >= 8 && have >= 40 + 8 ? FRAME_FRAGMENT : FRAME_BAD;
	else if (ip[6] == IPPROTO_ICMPV6)
		parse_icmp6(ip + 40, payload < have - 40 ? payload : have - 40, frame);
	else
		frame->kind = FRAME_BAD; /* behind other headers could be TCP, which must not reach lwIP unsteered */
}

void frame_parse(const struct rte_mbuf *m, struct frame *frame)
{
	const uint8_t *data = rte_pktmbuf_mtod(m, const uint8_t *);
	uint32_t have = m->data_len;

	frame->kind = FRAME_BAD;
	frame->mtu = 0;
	frame->l3 = RTE_ETHER_HDR_LEN;
	if (have < RTE_ETHER_HDR_LEN + 1u)
		return;
	switch (get16(data + 12)) {
	case RTE_ETHER_TYPE_IPV4:
		parse_ipv4(m, data + frame->l3, have - frame->l3, frame);
		break;
	case RTE_ETHER_TYPE_IPV6:
		parse_ipv6(m, data + frame->l3, have - frame->l3, frame);
		break;
	case RTE_ETHER_TYPE_ARP:
		if (have >= RTE_ETHER_HDR_LEN + 28u)
			frame->kind = FRAME_ARP;
		break;
	default:
		frame->kind = FRAME_OTHER;
	}
}

bool frame_checksum_ok(const struct rte_mbuf *m, const struct frame *frame, bool partial)
{
	const uint8_t *ip = rte_pktmbuf_mtod_offset(m, const uint8_t *, frame->l3);
	const uint8_t *l4 = rte_pktmbuf_mtod_offset(m, const uint8_t *, frame->l4);
	bool udp = frame->kind == FRAME_UDP;
	uint16_t pseudo, field;

	memcpy(&field, l4 + (udp ? 6 : 16), 2);
	if (udp && !field)
		return IP_IS_V4(&frame->local); /* a sender may leave it out, not with IPv6 */
	pseudo = checksum_pseudo(ip, udp ? IPPROTO_UDP : IPPROTO_TCP, frame->l4_len);
	if (partial && field == pseudo)
		return true;
	return checksum_fold((uint64_t)pseudo + checksum_mbuf(m, frame->l4, frame->l4_len)) == 0xffff;
}

void frame_write_checksum(struct rte_mbuf *m, const struct frame *frame)
{
	const uint8_t *ip = rte_pktmbuf_mtod_offset(m, const uint8_t *, frame->l3);
	uint8_t *field = rte_pktmbuf_mtod_offset(m, uint8_t *, frame->l4) + 6;
	uint16_t sum;

	if (!field[0] && !field[1])
		return; /* its sender has left it out */
	memset(field, 0, sizeof(sum));
	sum = checksum_pseudo(ip, IPPROTO_UDP, frame->l4_len);
	sum = (uint16_t)~checksum_fold((uint64_t)sum + checksum_mbuf(m, frame->l4, frame->l4_len));
	sum = sum ? sum : 0xffff; /* 0 means none */
	memcpy(field, &sum, sizeof(sum));
}
