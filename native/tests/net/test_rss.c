/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The hash by which a NIC, and so every worker, says whose a flow is: DPDK's, and what follows for a port of ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <rte_byteorder.h>

#include "net/local_port.h"
#include "net/rss.h"
#include "net/softrss.h"
#include "net/steer_kit.h"

static void the_hash_is_dpdks(void **state)
{
	uint32_t seed = 7;

	for (int i = 0; i < 2000; i++) {
		uint32_t v[4];

		for (int k = 0; k < 4; k++)
			v[k] = seed = seed * 1664525 + 1013904223;
		ip_addr_t remote = IPADDR4_INIT(v[0]), local = IPADDR4_INIT(v[1]);
		uint16_t sport = (uint16_t)(v[2] >> 16), dport = (uint16_t)(v[3] >> 16);
		uint32_t tuple[3] = { rte_be_to_cpu_32(v[0]), rte_be_to_cpu_32(v[1]), (uint32_t)sport << 16 | dport };

		assert_int_equal(rss_hash(kit.stack.rss, &remote, sport, &local, dport),
		                 softrss(tuple, 3, kit.group->rss_key));
	}
}

static void the_hash_is_dpdks_for_ipv6(void **state)
{
	uint32_t seed = 9;

	for (int i = 0; i < 500; i++) {
		ip_addr_t remote, local;
		uint32_t tuple[9];

		memset(&remote, 0, sizeof(remote));
		memset(&local, 0, sizeof(local));
		IP_SET_TYPE_VAL(remote, IPADDR_TYPE_V6);
		IP_SET_TYPE_VAL(local, IPADDR_TYPE_V6);
		for (int k = 0; k < 4; k++) {
			ip_2_ip6(&remote)->addr[k] = seed = seed * 1664525 + 1013904223;
			tuple[k] = rte_be_to_cpu_32(seed);
			ip_2_ip6(&local)->addr[k] = seed = seed * 1664525 + 1013904223;
			tuple[4 + k] = rte_be_to_cpu_32(seed);
		}
		tuple[8] = seed;
		assert_int_equal(rss_hash(kit.stack.rss, &remote, (uint16_t)(seed >> 16), &local, (uint16_t)seed),
		                 softrss(tuple, 9, kit.group->rss_key));
	}
}

static void an_outgoing_port_brings_its_replies_home(void **state)
{
	ip_addr_t remote = IPADDR4_INIT(PEER), local = IPADDR4_INIT(kit.group->host_addr_be);

	for (int i = 0; i < 100; i++) {
		uint16_t p = local_port_pick(&kit.stack, &local, &remote, 6379);

		assert_true(p >= 32768);
		assert_int_equal(kit.group->reta[rss_hash(kit.stack.rss, &remote, 6379, &local, p) % GZ_RETA_SIZE], SELF);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_hash_is_dpdks, kit_reset),
		cmocka_unit_test_setup(the_hash_is_dpdks_for_ipv6, kit_reset),
		cmocka_unit_test_setup(an_outgoing_port_brings_its_replies_home, kit_reset),
	};

	if (!eal_kit_start(argv[0]))
		return 77; /* meson: skipped */
	return cmocka_run_group_tests(tests, kit_start, kit_stop);
}
