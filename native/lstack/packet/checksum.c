/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "packet/checksum.h"

#include <arpa/inet.h>
#include <string.h>

#include <rte_mbuf.h>

/* Adds 32-bit words into 64 bits: no carry is lost before 2^32 words. */
static uint64_t sum_bytes(const uint8_t *p, uint32_t len)
{
	uint64_t a = 0, b = 0;
	uint32_t w[4], tail = 0;

	for (; len >= 16; len -= 16, p += 16) {
		memcpy(w, p, 16);
		a += (uint64_t)w[0] + w[1];
		b += (uint64_t)w[2] + w[3];
	}
	for (; len >= 4; len -= 4, p += 4) {
		memcpy(w, p, 4);
		a += w[0];
	}
	memcpy(&tail, p, len); /* the bytes beyond the end count as zero */
	return a + b + tail;
}

uint16_t lwip_checksum(const void *data, int len)
{
	return len > 0 ? checksum_fold(sum_bytes(data, (uint32_t)len)) : 0;
}

uint16_t checksum_pseudo(const uint8_t *ip, uint8_t protocol, uint32_t len)
{
	uint64_t sum = htonl(len);

	sum += htons(protocol);
	if (ip[0] >> 4 == 6)
		sum += sum_bytes(ip + 8, 32);
	else
		sum += sum_bytes(ip + 12, 8);
	return checksum_fold(sum);
}

uint16_t checksum_mbuf(const struct rte_mbuf *m, uint32_t off, uint32_t len)
{
	uint64_t sum = 0;
	bool odd = false;

	for (; m && len; m = m->next) {
		uint32_t n = m->data_len;

		if (off >= n) {
			off -= n;
			continue;
		}
		n = n - off < len ? n - off : len;
		uint16_t part = checksum_fold(sum_bytes(rte_pktmbuf_mtod_offset(m, const uint8_t *, off), n));

		sum += odd ? (uint16_t)(part << 8 | part >> 8) : part;
		odd ^= n & 1;
		off = 0;
		len -= n;
	}
	return checksum_fold(sum);
}
