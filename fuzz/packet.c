/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "packet.h"

#include <string.h>

static const uint8_t our_mac[6] = { 2, 0, 0, 0, 0, 1 }, peer_mac[6] = { 2, 0, 0, 0, 0, 9 };
static const uint8_t our_addr[4] = { 10, 0, 0, 2 };
static const uint8_t prefix6[16] = { 0xfd, 0, 0, 0x91 };

void packet_peer(bool v6, uint32_t peer, uint8_t addr[16])
{
	memset(addr, 0, 16);
	if (v6)
		memcpy(addr, prefix6, 16);
	else
		memcpy(addr + 10, (const uint8_t[]){ 0xff, 0xff, 10 }, 3);
	addr[15] = (uint8_t)(16 + peer % PACKET_PEERS);
}

uint32_t packet_head(uint8_t *f, bool v6, uint32_t peer, uint8_t protocol, uint32_t bytes)
{
	uint8_t *ip = f + 14, addr[16];

	packet_peer(v6, peer, addr);
	memcpy(f, our_mac, 6);
	memcpy(f + 6, peer_mac, 6);
	wire_put16(f + 12, v6 ? 0x86dd : 0x0800);
	memset(ip, 0, PACKET_L4(v6) - 14);
	if (v6) {
		ip[0] = 0x60;
		wire_put16(ip + 4, bytes);
		ip[6] = protocol;
		ip[7] = 255;
		memcpy(ip + 8, addr, 16);
		memcpy(ip + 24, prefix6, 16);
		ip[39] = 2;
	} else {
		ip[0] = 0x45;
		wire_put16(ip + 2, 20 + bytes);
		ip[8] = 64;
		ip[9] = protocol;
		memcpy(ip + 12, addr + 12, 4);
		memcpy(ip + 16, our_addr, 4);
		wire_put16(ip + 10, wire_fold(wire_sum(ip, 20)));
	}
	return PACKET_L4(v6) + bytes;
}

static void fix_l4(uint8_t *l4, uint32_t bytes, uint8_t protocol, uint32_t addresses)
{
	uint32_t place = wire_checksum_at(protocol);
	uint16_t made;

	if (!place || place + 2 > bytes)
		return;
	wire_put16(l4 + place, 0);
	made = wire_fold(wire_sum(l4, bytes) + (protocol == 1 ? 0 : addresses + protocol + bytes));
	wire_put16(l4 + place, protocol == 17 && !made ? 0xffff : made);
}

static void fix4(uint8_t *ip, uint32_t bytes)
{
	uint32_t header = (ip[0] & 15) * 4u, total;

	if (bytes < 20 || header < 20 || header > bytes)
		return;
	wire_put16(ip + 10, 0);
	wire_put16(ip + 10, wire_fold(wire_sum(ip, header)));
	total = wire_get16(ip + 2);
	if (total > bytes || total < header || wire_get16(ip + 6) & 0x3fff)
		return;
	fix_l4(ip + header, total - header, ip[9], wire_sum(ip + 12, 8));
}

static void fix6(uint8_t *ip, uint32_t bytes)
{
	uint32_t at = 40, end;
	uint8_t next;

	if (bytes < 40)
		return;
	end = 40u + wire_get16(ip + 4);
	next = ip[6];
	if (end > bytes)
		return;
	while ((next == 0 || next == 43 || next == 60) && at + 8 <= end) {
		next = ip[at];
		at += 8u + ip[at + 1] * 8u;
	}
	if (at < end)
		fix_l4(ip + at, end - at, next, wire_sum(ip + 8, 32));
}

void packet_fix(uint8_t *f, uint32_t bytes)
{
	if (bytes < 34)
		return;
	if (wire_get16(f + 12) == 0x0800)
		fix4(f + 14, bytes - 14);
	else if (wire_get16(f + 12) == 0x86dd)
		fix6(f + 14, bytes - 14);
}

uint32_t packet_arp(uint8_t *f, uint32_t peer)
{
	uint8_t *arp = f + 14, addr[16];

	packet_peer(false, peer, addr);
	memset(f, 0xff, 6);
	memcpy(f + 6, peer_mac, 6);
	wire_put16(f + 12, 0x0806);
	memset(arp, 0, 28);
	memcpy(arp, (const uint8_t[]){ 0, 1, 8, 0, 6, 4, 0, 1 }, 8);
	memcpy(arp + 8, peer_mac, 6);
	memcpy(arp + 14, addr + 12, 4);
	memcpy(arp + 24, our_addr, 4);
	return 42;
}

uint32_t packet_solicitation(uint8_t *f, uint32_t peer)
{
	uint8_t *icmp = f + PACKET_L4(true);
	uint32_t bytes;

	memset(icmp, 0, 32);
	icmp[0] = 135;
	memcpy(icmp + 8, prefix6, 16);
	icmp[23] = 2;
	icmp[24] = icmp[25] = 1;
	memcpy(icmp + 26, peer_mac, 6);
	bytes = packet_head(f, true, peer, 58, 32);
	packet_fix(f, bytes);
	return bytes;
}
