/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "net/udp_table.h"

#include <stddef.h>

#include <lwip/udp.h>

static struct udp_pcb *bound_to[UINT16_MAX + 1]; /* but for the port lwIP looks at: its list is udp_pcbs */
static uint16_t current;
static udp_error_fn *error_hears;

void udp_table_turn_to(uint16_t port)
{
	if (port == current)
		return;
	bound_to[current] = udp_pcbs;
	current = port;
	udp_pcbs = bound_to[port];
}

const struct udp_pcb *udp_table_see(uint16_t port)
{
	return port == current ? udp_pcbs : bound_to[port];
}

void udp_table_on_error(udp_error_fn *hears)
{
	error_hears = hears;
}

void udp_table_error(const struct frame *frame, const uint8_t *icmp)
{
	if (error_hears)
		error_hears(frame, icmp);
}
