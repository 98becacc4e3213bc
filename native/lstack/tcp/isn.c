/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "tcp/isn.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <lwip/opt.h>
#include <hooks.h>

static struct {
	uint64_t isn[2];
	uint64_t table;
	uint64_t cookie[2];
	uint64_t random[2];
	uint64_t drawn;
} secret;

int isn_open(void)
{
	ssize_t n = getrandom(&secret, sizeof(secret), 0);

	if (n < 0)
		return -errno;
	return n == (ssize_t)sizeof(secret) ? 0 : -EIO;
}

uint64_t isn_table_key(void)
{
	return secret.table;
}

const uint64_t *isn_cookie_key(void)
{
	return secret.cookie;
}

static inline uint64_t rotl(uint64_t x, int b)
{
	return x << b | x >> (64 - b);
}

static inline void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

uint64_t isn_siphash(const uint64_t key[2], const void *data, size_t len)
{
	uint64_t v[4] = { key[0] ^ 0x736f6d6570736575ull, key[1] ^ 0x646f72616e646f6dull,
		          key[0] ^ 0x6c7967656e657261ull, key[1] ^ 0x7465646279746573ull };
	uint64_t last = (uint64_t)len << 56, word;
	const uint8_t *p = data;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&word, p, 8);
		v[3] ^= word;
		sip_round(v);
		sip_round(v);
		v[0] ^= word;
	}
	word = 0;
	memcpy(&word, p, len);
	last |= word;
	v[3] ^= last;
	sip_round(v);
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

u32_t lwip_tcp_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote, u16_t remote_port)
{
	struct {
		uint8_t local[16], remote[16];
		uint16_t local_port, remote_port;
	} tuple;
	struct timespec now;

	memset(&tuple, 0, sizeof(tuple));
	memcpy(tuple.local, local, IP_IS_V6(local) ? 16 : 4); /* ip_addr_t begins with the address */
	memcpy(tuple.remote, remote, IP_IS_V6(remote) ? 16 : 4);
	tuple.local_port = local_port;
	tuple.remote_port = remote_port;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u32_t)isn_siphash(secret.isn, &tuple, sizeof(tuple)) +
	       (u32_t)((uint64_t)now.tv_sec * 250000u + (uint64_t)now.tv_nsec / 4000u);
}

uint32_t lwip_random(void)
{
	uint64_t n = secret.drawn++;

	return (uint32_t)isn_siphash(secret.random, &n, sizeof(n));
}
