/* SPDX-License-Identifier: MulanPSL-2.0 */
/* DPDK's own hash, in a file of its own: its headers and lwIP's both define IPv6 headers. */
#include "net/softrss.h"

#include <rte_thash.h>

uint32_t softrss(uint32_t *tuple, uint32_t words, const uint8_t *key)
{
	return rte_softrss(tuple, words, key);
}
