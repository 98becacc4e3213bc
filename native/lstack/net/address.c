/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "net/address.h"

#include <string.h>

#include <gazelle/address.h>
#include <gazelle/group_page.h>

void address_write(const ip_addr_t *ip, uint8_t out[16])
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	if (IP_IS_V6(ip)) {
		memcpy(out, ip_2_ip6(ip)->addr, 16);
		return;
	}
	memcpy(out, mapped, 12);
	memcpy(out + 12, &ip_2_ip4(ip)->addr, 4);
}

void address_read(const uint8_t in[16], ip_addr_t *out)
{
	memset(out, 0, sizeof(*out));
	if (gz_addr_is4(in)) {
		memcpy(&ip_2_ip4(out)->addr, in + 12, 4);
		return;
	}
	IP_SET_TYPE(out, IPADDR_TYPE_V6);
	memcpy(ip_2_ip6(out)->addr, in, 16);
}

uint8_t address_own_slot(const struct gz_group_page *group, const ip_addr_t *ip)
{
	uint8_t addr[16];

	address_write(ip, addr);
	return gz_own_find(group, addr);
}

void address_own(const struct gz_group_page *group, uint8_t slot, const ip_addr_t *towards, ip_addr_t *out)
{
	uint8_t addr[16];

	if (gz_own_read(group, slot, addr) && gz_addr_is4(addr) == !IP_IS_V6(towards))
		address_read(addr, out);
	else if (IP_IS_V6(towards))
		address_read(group->host_addr6, out);
	else
		ip_addr_set_ip4_u32(out, group->host_addr_be);
}
