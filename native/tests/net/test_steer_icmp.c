/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Steering of ICMP: what every worker has to hear, and errors about datagrams. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>
#include <string.h>

#include <cmocka.h>

#include <gazelle/atomic.h>

#include "net/steer.h"
#include "net/steer_kit.h"
#include "packet/checksum.h"

/* "Port unreachable" about a datagram from our port 5353 to the peer's port 53, as a router between us says it. */
static uint32_t make_icmp_about_udp(uint8_t *f, uint32_t router_be, uint32_t peer_be, uint8_t fragment)
{
	uint16_t sum;

	kit_make_tcp(f, router_be, 0, 0, 0);
	memset(f + 34, 0, 36);
	f[17] = 56;
	f[23] = 1;
	f[24] = f[25] = 0;
	sum = (uint16_t)~lwip_checksum(f + 14, 20);
	memcpy(f + 24, &sum, 2);
	f[34] = f[35] = 3;
	f[42] = 0x45;
	f[45] = 28;
	f[49] = fragment;
	f[51] = 17;
	memcpy(f + 54, &kit.group->host_addr_be, 4);
	memcpy(f + 58, &peer_be, 4);
	f[62] = 5353 >> 8, f[63] = 5353 & 255;
	f[65] = 53;
	sum = (uint16_t)~lwip_checksum(f + 34, 36);
	memcpy(f + 36, &sum, 2);
	return 70;
}

/* "Packet too big" about a datagram from our port 5353, by a path that takes so much. */
static void too_big(uint16_t mtu)
{
	uint8_t f[128], *icmp = kit_make_ip6(f, IPPROTO_ICMPV6, 56), *inner = icmp + 8;

	icmp[0] = 2;
	icmp[6] = (uint8_t)(mtu >> 8), icmp[7] = (uint8_t)mtu;
	inner[0] = 0x60, inner[6] = IPPROTO_UDP;
	memcpy(inner + 8, f + 38, 16);
	memcpy(inner + 24, f + 22, 16);
	inner[40] = 5353 >> 8, inner[41] = 5353 & 255;
	kit_finish_ip6(f, IPPROTO_ICMPV6, 56, 2);
	steer_input(&kit.stack, kit_frame(f, 54 + 56));
}

static void an_advertisement_reaches_all(void **state)
{
	static const uint8_t peer[16] = { PEER6 };
	uint8_t f[128], *icmp = kit_make_ip6(f, IPPROTO_ICMPV6, 32);

	icmp[0] = 136, icmp[4] = 0x60, icmp[24] = 2, icmp[25] = 1;
	memcpy(icmp + 8, peer, 16);
	memcpy(icmp + 26, f + 6, 6);
	kit_finish_ip6(f, IPPROTO_ICMPV6, 32, 2);
	steer_input(&kit.stack, kit_frame(f, 86));
	for (uint32_t q = 0; q < WORKERS; q++)
		if (q != SELF)
			assert_int_equal(kit_handed_to(q), 0);
}

static void an_icmp_error_about_a_datagram_is_told_here(void **state)
{
	uint8_t f[70];
	uint32_t len = make_icmp_about_udp(f, PEER, PEER + 0x01000000u, 0);

	kit.told = 0;
	steer_input(&kit.stack, kit_frame(f, len));
	assert_int_equal(kit.told, 1);
	assert_int_equal(kit.told_of.local_port, 5353);
	assert_int_equal(kit.told_of.remote_port, 53);
	assert_int_equal(ip_2_ip4(&kit.told_of.local)->addr, kit.group->host_addr_be);
	assert_int_equal(ip_2_ip4(&kit.told_of.remote)->addr, PEER + 0x01000000u);
	f[60] ^= 1;
	steer_input(&kit.stack, kit_frame(f, len)); /* its checksum is wrong now */
	len = make_icmp_about_udp(f, PEER, PEER + 0x01000000u, 1);
	steer_input(&kit.stack, kit_frame(f, len)); /* a later fragment: those are no ports */
	assert_int_equal(kit.told, 1);
}

static void a_path_that_takes_less_is_told_to_all_unless_it_lies(void **state)
{
	static const uint16_t lies[] = { 0, 48, 1279, 1500, 65535 };
	uint64_t dropped = gz_load(&kit.stack.page->counters[GZ_COUNT_rx_dropped]);

	kit.told = 0;
	too_big(1280);
	assert_int_equal(kit.told, 1);
	assert_int_equal(kit.told_of.local_port, 5353);
	for (uint32_t q = 0; q < WORKERS; q++)
		if (q != SELF)
			assert_int_equal(kit_handed_to(q), 0);
	for (uint32_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++)
		too_big(lies[i]);
	assert_int_equal(gz_load(&kit.stack.page->counters[GZ_COUNT_rx_dropped]), dropped + 5);
	assert_int_equal(kit.told, 1);
	for (uint32_t q = 0; q < WORKERS; q++)
		if (q != SELF)
			assert_int_equal(kit_handed_to(q), -1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(an_advertisement_reaches_all, kit_reset),
		cmocka_unit_test_setup(an_icmp_error_about_a_datagram_is_told_here, kit_reset),
		cmocka_unit_test_setup(a_path_that_takes_less_is_told_to_all_unless_it_lies, kit_reset),
	};

	if (!eal_kit_start(argv[0]))
		return 77; /* meson: skipped */
	return cmocka_run_group_tests(tests, kit_start, kit_stop);
}
