/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Addresses as the ABI has them: 16 bytes, IPv4 as ::ffff:a.b.c.d. */
#ifndef GAZELLE_ADDRESS_H
#define GAZELLE_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline bool gz_addr_is4(const uint8_t addr[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(addr, mapped, sizeof(mapped));
}

/* :: or ::ffff:0.0.0.0 */
static inline bool gz_addr_is_any(const uint8_t addr[16])
{
	static const uint8_t zero[16];

	return !memcmp(addr + 12, zero, 4) && (gz_addr_is4(addr) || !memcmp(addr, zero, 12));
}

/* 127.0.0.0/8 or ::1 */
static inline bool gz_addr_is_loopback(const uint8_t addr[16])
{
	static const uint8_t loopback[16] = { [15] = 1 };

	return gz_addr_is4(addr) ? addr[12] == 127 : !memcmp(addr, loopback, sizeof(loopback));
}

/* fe80::/10: of one interface */
static inline bool gz_addr_is_link_local(const uint8_t addr[16])
{
	return addr[0] == 0xfe && addr[1] >> 6 == 2;
}

/* True if a listener bound to `addr` takes connections to `to`: the one on :: IPv4 as well, unless it is v6only. */
static inline bool gz_addr_serves(const uint8_t addr[16], bool v6only, const uint8_t to[16])
{
	if (!gz_addr_is_any(addr))
		return !memcmp(addr, to, 16);
	if (gz_addr_is4(addr) || v6only)
		return gz_addr_is4(addr) == gz_addr_is4(to);
	return true;
}

#endif
