/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "net/rss.h"

#include <stdlib.h>

#include <gazelle/group_page.h>

#define HASH_BYTES 36u /* two IPv6 addresses and two ports */

struct rss {
	uint32_t toeplitz[HASH_BYTES][256];
};

static void fill_toeplitz(struct rss *rss, const uint8_t *key)
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
			rss->toeplitz[pos][value] = hash;
		}
	}
}

static uint32_t hash_bytes(const struct rss *rss, uint32_t *pos, const void *bytes, uint32_t n)
{
	const uint8_t *p = bytes;
	uint32_t hash = 0;

	for (uint32_t i = 0; i < n; i++)
		hash ^= rss->toeplitz[(*pos)++][p[i]];
	return hash;
}

static uint32_t hash_addresses(const struct rss *rss, const ip_addr_t *remote, const ip_addr_t *local, uint32_t *pos)
{
	uint32_t hash;

	if (IP_IS_V6(remote)) {
		hash = hash_bytes(rss, pos, ip_2_ip6(remote)->addr, 16);
		return hash ^ hash_bytes(rss, pos, ip_2_ip6(local)->addr, 16);
	}
	hash = hash_bytes(rss, pos, &ip_2_ip4(remote)->addr, 4);
	return hash ^ hash_bytes(rss, pos, &ip_2_ip4(local)->addr, 4);
}

uint32_t rss_hash(const struct rss *rss, const ip_addr_t *remote, uint16_t remote_port, const ip_addr_t *local,
                  uint16_t local_port)
{
	uint8_t ports[4] = { (uint8_t)(remote_port >> 8), (uint8_t)remote_port, (uint8_t)(local_port >> 8),
		             (uint8_t)local_port };
	uint32_t pos = 0, hash = hash_addresses(rss, remote, local, &pos);

	return hash ^ hash_bytes(rss, &pos, ports, 4);
}

uint32_t rss_hash_addresses(const struct rss *rss, const ip_addr_t *remote, const ip_addr_t *local)
{
	uint32_t pos = 0;

	return hash_addresses(rss, remote, local, &pos);
}

struct rss *rss_create(const uint8_t *key)
{
	struct rss *rss = malloc(sizeof(*rss));

	if (rss)
		fill_toeplitz(rss, key);
	return rss;
}
