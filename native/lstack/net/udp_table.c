/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "net/udp_table.h"

#include <lwip/udp.h>

static struct udp_pcb *bound_to[UINT16_MAX + 1]; /* but for the port lwIP looks at: its list is udp_pcbs */
static uint16_t current;

void udp_table_turn_to(uint16_t port)
{
	if (port == current)
		return;
	bound_to[current] = udp_pcbs;
	current = port;
	udp_pcbs = bound_to[port];
}
