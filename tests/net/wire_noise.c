/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Frames that no well-meaning kernel sends, seeded, into a device behind which a stack serves:
 *
 *   wire_noise KIND DEVICE MAC PORT SEED COUNT
 *
 * KIND: tcp        segments of live connections to 10.91.0.2 or fd00:91::2 on PORT, as they come by, changed
 *       fragments  pieces of datagrams, TCP to PORT and ICMP, with holes, overlaps and lies
 *       icmp       errors about packets that have come by, of any connection
 *       neighbours ARP and neighbour discovery, of any address but those in use
 *       ethernet   bytes, behind headers that are more or less right
 *
 * Checksums are right most of the time. Nothing is aimed at other connections than those to PORT, but ICMP errors.
 * Prints how many frames the device took, and how often it was full.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire_bytes.h"

#define SEEN 64u
#define LONGEST 1514u
#define LOOK_EVERY 16u /* frames sent: then what has come by is looked at */

struct packet {
	uint32_t len;
	uint8_t byte[LONGEST];
};

static const uint8_t peer_mac[6] = { 2, 0xaa, 0, 0, 0, 0x77 };
static const uint8_t ours4[4] = { 10, 91, 0, 2 }, theirs4[4] = { 10, 91, 0, 1 };
static const uint8_t prefix6[16] = { 0xfd, 0, 0, 0x91 };

static struct packet out, seen_tcp[SEEN], seen_any[SEEN]; /* to PORT; sent by the stack */
static uint32_t tcps, anys;
static uint8_t mac[6];
static uint16_t port;
static uint64_t state;

static uint32_t chance(uint32_t below)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(state >> 33) % below;
}

static void add32(uint8_t *at, uint32_t value)
{
	wire_put32(at, wire_get32(at) + value);
}

/* ------------------------------------------------------------------ headers and checksums */

static bool is6(void)
{
	return wire_get16(out.byte + 12) == ETHERTYPE_IPV6;
}

static uint32_t header(void)
{
	return is6() ? 54 : 34;
}

static void fix(void)
{
	uint8_t *ip = out.byte + 14, *l4 = out.byte + header();
	uint32_t len = out.len - header(), protocol = is6() ? ip[6] : ip[9];
	uint32_t place = wire_checksum_at((uint8_t)protocol);

	if (!is6()) {
		wire_put16(ip + 10, 0);
		wire_put16(ip + 10, wire_fold(wire_sum(ip, 20)));
	}
	if (!place || place + 2 > len || (!is6() && wire_get16(ip + 6) & 0x3fff))
		return;
	wire_put16(l4 + place, 0);
	wire_put16(l4 + place, wire_fold(wire_sum(l4, len) + (protocol == 1 ? 0
	                                                      : is6()       ? wire_sum(ip + 8, 32) + protocol + len
	                                                                    : wire_sum(ip + 12, 8) + protocol + len)));
}

/* Before the `len` bytes at header(); from somebody on the link, or from the kernel at the other end. */
static void head(bool v6, uint8_t protocol, uint32_t len, uint8_t from)
{
	uint8_t *ip = out.byte + 14;

	memcpy(out.byte, mac, 6);
	memcpy(out.byte + 6, peer_mac, 6);
	wire_put16(out.byte + 12, v6 ? ETHERTYPE_IPV6 : ETHERTYPE_IP);
	memset(ip, 0, v6 ? 40 : 20);
	if (v6) {
		ip[0] = 0x60;
		wire_put16(ip + 4, len);
		ip[6] = protocol;
		ip[7] = 255;
		memcpy(ip + 8, prefix6, 16);
		ip[23] = from;
		memcpy(ip + 24, prefix6, 16);
		ip[39] = 2;
	} else {
		ip[0] = 0x45;
		wire_put16(ip + 2, 20 + len);
		ip[8] = 64;
		ip[9] = protocol;
		memcpy(ip + 12, theirs4, 3);
		ip[15] = from;
		memcpy(ip + 16, ours4, 4);
	}
	out.len = header() + len;
}

/* ------------------------------------------------------------------ the kinds */

static void fill(uint8_t *at, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		at[i] = (uint8_t)chance(256);
}

/* One that has come by, changed in one thing or several; before there is one, a SYN. */
static void make_tcp(void)
{
	static const uint8_t flags[] = { 0x10, 0x18, 0x02, 0x12, 0x11, 0x04, 0x14, 0x29, 0x00, 0x3f };
	uint8_t *tcp;

	if (!tcps || !chance(64)) {
		head(chance(2), 6, 20, 1);
		tcp = out.byte + header();
		fill(tcp, 20);
		wire_put16(tcp + 2, port);
		tcp[12] = 0x50;
		tcp[13] = 2;
	} else {
		out = seen_tcp[chance(tcps < SEEN ? tcps : SEEN)];
		tcp = out.byte + header();
	}
	for (uint32_t changes = 1 + chance(3); changes--;) {
		switch (chance(9)) {
		case 0:
			add32(tcp + 4, chance(2) ? chance(3000) - 1500 : chance(1u << 30));
			break;
		case 1:
			add32(tcp + 8, chance(2) ? chance(3000) - 1500 : chance(1u << 30));
			break;
		case 2:
			tcp[13] = flags[chance(sizeof(flags))];
			break;
		case 3:
			wire_put16(tcp + 14, chance(3) ? chance(65536) : 0);
			break;
		case 4:
			tcp[12] = (uint8_t)(chance(16) << 4);
			break;
		case 5:
			if (out.len > header() + 20)
				tcp[20 + chance(out.len - header() - 20)] = (uint8_t)chance(256);
			break;
		case 6: /* longer or shorter than it says */
			out.len = header() + 20 + chance(LONGEST - header() - 20);
			break;
		case 7:
			wire_put16(tcp + 18, chance(65536));
			break;
		default: /* as it was: it came twice, or late */
			break;
		}
	}
	if (chance(2)) { /* its length follows */
		if (is6())
			wire_put16(out.byte + 18, out.len - 54);
		else
			wire_put16(out.byte + 16, out.len - 14);
	}
}

static void make_fragment(void)
{
	static const uint8_t protocols[] = { 6, 17, 1, 58, 44, 0, 60 };
	uint32_t len = chance(4) ? 8 * (1 + chance(100)) : chance(900), offset = 8 * chance(chance(3) ? 30 : 8192);
	uint8_t protocol = protocols[chance(sizeof(protocols))], from = (uint8_t)(16 + chance(32));
	bool v6 = chance(2), more = chance(2);
	uint32_t id = chance(64);
	uint8_t *data;

	if (v6) {
		head(true, 44, 8 + len, from);
		data = out.byte + 54;
		memset(data, 0, 8);
		data[0] = protocol;
		wire_put16(data + 2, offset | more);
		data[7] = (uint8_t)id;
		data += 8;
	} else {
		head(false, protocol, len, from);
		wire_put16(out.byte + 18, id);
		wire_put16(out.byte + 20, offset / 8 | (more ? 0x2000u : 0));
		data = out.byte + 34;
	}
	fill(data, len);
	if (protocol == 6 && len > 4)
		wire_put16(data + 2, port);
}

static void make_icmp(void)
{
	static const uint8_t types4[] = { 3, 3, 3, 11, 12, 4, 5, 8 }, types6[] = { 1, 2, 2, 2, 3, 4, 128, 129 };
	const struct packet *about = anys ? &seen_any[chance(anys < SEEN ? anys : SEEN)] : NULL;
	bool v6 = about ? wire_get16(about->byte + 12) == ETHERTYPE_IPV6 : chance(2);
	uint32_t quoted = about ? about->len - 14 : 28, mtus[] = { 0, 68, 576, 1280, 1400, 1499, 1500, 65535 };
	uint8_t *icmp;

	quoted = quoted > 500 ? 500 : quoted;
	if (!chance(4))
		quoted = chance(quoted);
	head(v6, v6 ? 58 : 1, 8 + quoted, chance(2) ? 1 : (uint8_t)(16 + chance(32)));
	icmp = out.byte + header();
	icmp[0] = (v6 ? types6 : types4)[chance(8)];
	icmp[1] = (uint8_t)(chance(4) ? 4 * !v6 : chance(16));
	wire_put16(icmp + 4, 0);
	wire_put16(icmp + 6, mtus[chance(8)]);
	if (about)
		memcpy(icmp + 8, about->byte + 14, quoted);
	else
		fill(icmp + 8, quoted);
	if (quoted && !chance(3))
		icmp[8 + chance(quoted)] = (uint8_t)chance(256);
}

/* Never about the kernel's address or the stack's own: whoever is on the link could take those, and not only with gazelled. */
static void make_neighbour(void)
{
	static const uint8_t types[] = { 133, 134, 135, 135, 136, 136, 137, 143 };
	uint8_t who = (uint8_t)(3 + chance(250)), *at;
	uint32_t options = 8 * chance(8);

	if (chance(2)) {
		memset(out.byte, chance(2) ? 0xff : 2, 6);
		memcpy(out.byte + 6, peer_mac, 6);
		wire_put16(out.byte + 12, ETHERTYPE_ARP);
		at = out.byte + 14;
		memcpy(at, (const uint8_t[]){ 0, 1, 8, 0, 6, 4, 0, 1 }, 8);
		at[7] = (uint8_t)(1 + chance(2));
		fill(at + 8, 6);
		memcpy(at + 14, theirs4, 3);
		at[17] = who;
		memset(at + 18, 0, 6);
		memcpy(at + 24, ours4, 4);
		if (!chance(8))
			at[chance(8)] = (uint8_t)chance(256);
		out.len = chance(8) ? 42 : 14 + chance(28);
		return;
	}
	head(true, 58, 24 + options, who);
	at = out.byte + 54;
	memset(at, 0, 24);
	at[0] = types[chance(sizeof(types))];
	at[1] = chance(16) ? 0 : (uint8_t)chance(256);
	at[4] = (uint8_t)(chance(8) << 5);
	memcpy(at + 8, prefix6, 16);
	at[23] = at[0] == 135 && chance(4) ? 2 : who;
	fill(at + 24, options);
	if (options && chance(4)) {
		at[24] = (uint8_t)(1 + chance(2));
		at[25] = (uint8_t)(chance(4) ? 1 : chance(256));
	}
}

static void make_ethernet(void)
{
	static const uint16_t types[] = { 0x0800, 0x86dd, 0x8100, 0x88a8, 0x8864, 0x8847, 0x0800, 0x86dd };
	static const uint8_t protocols[] = { 0, 2, 41, 43, 47, 50, 51, 59, 60, 89, 132, 135, 255 };
	uint32_t len = chance(4) ? chance(100) : chance(1400);

	head(chance(2), protocols[chance(sizeof(protocols))], len, (uint8_t)(16 + chance(32)));
	fill(out.byte + header(), len);
	for (uint32_t changes = chance(4); changes--;)
		out.byte[14 + chance(header() - 14)] = (uint8_t)chance(256);
	if (!chance(4)) {
		wire_put16(out.byte + 12, types[chance(8)]);
		if (out.len < 54)
			out.len = 54; /* what header() is may have changed */
	}
	if (!chance(8))
		out.len = 14 + chance(out.len - 13);
}

/* ------------------------------------------------------------------ */

static void look(int fd)
{
	struct packet packet;
	ssize_t len;

	while ((len = recv(fd, packet.byte, sizeof(packet.byte), MSG_DONTWAIT | MSG_TRUNC)) > 0) {
		bool v6 = wire_get16(packet.byte + 12) == ETHERTYPE_IPV6;
		const uint8_t *tcp = packet.byte + (v6 ? 54 : 34);

		packet.len = (uint32_t)(len < (ssize_t)LONGEST ? len : LONGEST);
		if (packet.len < 74 || (!v6 && wire_get16(packet.byte + 12) != ETHERTYPE_IP))
			continue;
		if (!memcmp(packet.byte + 6, mac, 6))
			seen_any[anys++ % SEEN] = packet;
		else if (packet.byte[v6 ? 20 : 23] == 6 && wire_get16(tcp + 2) == port &&
		         memcmp(packet.byte + 6, peer_mac, 6))
			seen_tcp[tcps++ % SEEN] = packet;
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*make)(void);
	} kinds[] = { { "tcp", make_tcp },
		      { "fragments", make_fragment },
		      { "icmp", make_icmp },
		      { "neighbours", make_neighbour },
		      { "ethernet", make_ethernet } };
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	void (*make)(void) = NULL;
	unsigned int m[6];

	if (argc != 7 || fd < 0 || sscanf(argv[3], "%x:%x:%x:%x:%x:%x", m, m + 1, m + 2, m + 3, m + 4, m + 5) != 6)
		return 2;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(argv[1], kinds[i].name))
			make = kinds[i].make;
	for (int i = 0; i < 6; i++)
		mac[i] = (uint8_t)m[i];
	port = (uint16_t)atoi(argv[4]);
	state = strtoull(argv[5], NULL, 10);
	to.sll_ifindex = (int)if_nametoindex(argv[2]);
	if (!make || bind(fd, (struct sockaddr *)&to, sizeof(to)))
		return 2;
	uint64_t count = strtoull(argv[6], NULL, 10), full = 0;
	for (uint64_t i = 0; i < count; i++) {
		if (i % LOOK_EVERY == 0)
			look(fd);
		make();
		if (out.len > LONGEST)
			out.len = LONGEST;
		if (out.len >= header() && chance(16))
			fix();
		while (send(fd, out.byte, out.len, 0) < 0) {
			if (errno != ENOBUFS && errno != EAGAIN) {
				perror("send");
				return 1;
			}
			full++;
			usleep(1000); /* others are to get their frames in as well */
		}
	}
	printf("%llu frames, the device was full %llu times\n", (unsigned long long)count, (unsigned long long)full);
	return 0;
}
