/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Numbers and checksums as they stand in packets, for programs that make packets by hand. */
#ifndef TESTS_WIRE_BYTES_H
#define TESTS_WIRE_BYTES_H

#include <stdint.h>

static inline void wire_put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static inline void wire_put32(uint8_t *at, uint32_t value)
{
	wire_put16(at, value >> 16);
	wire_put16(at + 2, value);
}

static inline uint16_t wire_get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t wire_get32(const uint8_t *at)
{
	return (uint32_t)wire_get16(at) << 16 | wire_get16(at + 2);
}

/* The sum of 16-bit words that wire_fold makes a checksum of; sums of several pieces may be added before. */
static inline uint32_t wire_sum(const uint8_t *at, uint32_t bytes)
{
	uint32_t all = 0;

	for (uint32_t i = 0; i + 1 < bytes; i += 2)
		all += wire_get16(at + i);
	return bytes % 2 ? all + (uint32_t)(at[bytes - 1] << 8) : all;
}

static inline uint16_t wire_fold(uint32_t all)
{
	while (all >> 16)
		all = (all & 0xffff) + (all >> 16);
	return (uint16_t)~all;
}

/* Where the checksum of an IP protocol lies behind the IP header; 0: it has none that we know. */
static inline uint32_t wire_checksum_at(uint8_t protocol)
{
	switch (protocol) {
	case 6:
		return 16;
	case 17:
		return 6;
	case 1:
	case 58:
		return 2;
	default:
		return 0;
	}
}

#endif
