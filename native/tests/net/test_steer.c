/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Steering: which worker gets a frame, and what lwIP never sees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_mbuf.h>

#include <lwip/prot/tcp.h>

#include <gazelle/atomic.h>

#include "net/netif.h"
#include "net/steer.h"
#include "net/steer_kit.h"
#include "packet/checksum.h"
#include "packet/packet_ring.h"
#include "tcp/tcp_table.h"

static void a_syn_of_ours_is_accepted(void **state)
{
	uint16_t sport = kit_sport(SELF, LISTENED);

	kit_input(sport, LISTENED, TCP_SYN);
	assert_true(kit_has(sport, LISTENED));
	assert_int_equal(kit_handed_to(0), -1);
	assert_int_equal(kit_handed_to(2), -1);
}

static void a_syn_of_anothers_goes_to_its_owner(void **state)
{
	uint16_t sport = kit_sport(2, LISTENED);

	kit_input(sport, LISTENED, TCP_SYN);
	assert_false(kit_has(sport, LISTENED));
	assert_int_equal(kit_handed_to(2), 0);
	assert_int_equal(kit_handed_to(0), -1);
}

static void we_adopt_a_syn_whose_owner_is_down(void **state)
{
	uint16_t sport = kit_sport(2, LISTENED);

	gz_store(&kit.others[2]->state, GZ_WORKER_STARTING);
	kit_input(sport, LISTENED, TCP_SYN);
	assert_true(kit_has(sport, LISTENED));
	kit_set_others(GZ_WORKER_RUNNING);
	kit_input(sport, LISTENED, TCP_ACK); /* and keep its connection when the owner is back */
	assert_int_equal(kit_handed_to(2), -1);
}

static void a_connection_we_have_is_ours_whatever_its_hash(void **state)
{
	uint16_t sport = kit_sport(0, LISTENED);

	kit_hand_over(0, 0, 1, sport, LISTENED, TCP_SYN); /* the owner runs but does not listen */
	assert_true(kit_has(sport, LISTENED));
	kit_input(sport, LISTENED, TCP_ACK);
	assert_int_equal(kit_handed_to(0), -1);
}

static void an_unknown_segment_asks_all_and_the_last_one_resets(void **state)
{
	uint16_t sport = kit_sport(2, 4444);

	kit_input(sport, 4444, TCP_ACK);
	assert_int_equal(kit_handed_to(2), 0);
	assert_int_equal(kit.sent_rst, 0);
	kit_hand_over(0, 2, 2, sport, 4444, TCP_ACK); /* chain 2, 0, 1: we are the last */
	assert_int_equal(kit.sent_rst, 1);
	kit_set_others(GZ_WORKER_GONE);
	kit_input(sport, 4444, TCP_ACK); /* alone */
	assert_int_equal(kit.sent_rst, 2);
}

static void nobody_goes_round_for_ever(void **state)
{
	uint16_t sport = kit_sport(SELF, 4444);

	kit_hand_over(0, 0, 0, sport, 4444, TCP_ACK); /* chain 1, 2, (0): on to 2 */
	assert_int_equal(kit_handed_to(2), 1);
	assert_int_equal(kit_handed_to(0), -1);
	kit_hand_over(2, 2, 200, sport, 4444, TCP_ACK); /* a place beyond the chain's end is the end */
	assert_int_equal(kit_handed_to(0), -1);
	assert_int_equal(kit_handed_to(2), -1);
	assert_int_equal(kit.sent_rst, 1);
}

static void a_draining_worker_keeps_its_connections_but_gets_no_syn(void **state)
{
	kit_set_others(GZ_WORKER_DRAINING);
	kit_input(kit_sport(2, 4444), 4444, TCP_ACK);
	assert_int_equal(kit_handed_to(2), 0);
	kit_input(kit_sport(2, LISTENED), LISTENED, TCP_SYN);
	assert_int_equal(kit_handed_to(2), -1);
}

static void a_young_worker_does_not_refuse(void **state)
{
	kit_set_others(GZ_WORKER_GONE);
	kit.stack.started_ns = kit.stack.now_ns;
	kit_input(kit_sport(SELF, 4444), 4444, TCP_SYN);
	assert_int_equal(kit.sent, 0);
	kit.stack.started_ns = 0;
	kit_input(kit_sport(SELF, 4444), 4444, TCP_SYN);
	assert_int_equal(kit.sent_rst, 1);
}

static void a_dead_process_is_seen_before_it_is_reaped(void **state)
{
	uint16_t sport = kit_sport(2, LISTENED);
	siginfo_t info;
	pid_t child = fork();

	if (!child)
		_exit(0);
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0); /* ended, not reaped */
	gz_store(&kit.others[2]->pid, (uint32_t)child);
	kit_input(sport, LISTENED, TCP_SYN);
	gz_store(&kit.others[2]->pid, (uint32_t)getpid());
	waitpid(child, NULL, 0);
	assert_true(kit_has(sport, LISTENED));
	assert_int_equal(kit_handed_to(2), -1);
}

static void arp_is_copied_as_a_reply(void **state)
{
	uint8_t f[42], got[42];

	kit_make_arp(f);
	steer_input(&kit.stack, kit_frame(f, sizeof(f)));
	assert_int_equal(kit.sent, 1); /* we alone answer */
	for (uint32_t q = 0; q < WORKERS; q += 2) {
		struct packet_ring *ring = packet_ring_of(kit.theirs[q], SELF, q);
		struct packet_record record;
		bool broken;

		assert_true(packet_ring_peek(ring, &record, &broken));
		assert_int_equal(record.len, 42);
		packet_ring_get(ring, 0, got, 42);
		packet_ring_drop(ring, &record);
		assert_int_equal(got[21], 2);
		assert_memory_equal(got + 22, f + 22, 10);
	}
}

static void ipv6_connections_are_steered_as_ipv4s(void **state)
{
	uint16_t ours = kit_sport6(SELF), theirs_port = kit_sport6(0);
	uint8_t f[128];

	kit_make_syn6(kit_make_ip6(f, IPPROTO_TCP, 20), ours);
	kit_finish_ip6(f, IPPROTO_TCP, 20, 16);
	steer_input(&kit.stack, kit_frame(f, 74));
	assert_true(kit_has6(ours));
	kit_make_syn6(kit_make_ip6(f, IPPROTO_TCP, 20), theirs_port);
	kit_finish_ip6(f, IPPROTO_TCP, 20, 16);
	steer_input(&kit.stack, kit_frame(f, 74));
	assert_false(kit_has6(theirs_port));
	assert_int_equal(kit_handed_to(0), 0);
}

static void tcp_behind_other_headers_never_reaches_lwip(void **state)
{
	uint64_t dropped = gz_load(&kit.stack.page->counters[GZ_COUNT_rx_dropped]);
	uint16_t sport = kit_sport6(SELF);
	uint8_t f[128], *options = kit_make_ip6(f, IPPROTO_DSTOPTS, 28);

	options[0] = IPPROTO_TCP;
	options[2] = 1, options[3] = 4; /* padding */
	kit_make_syn6(options + 8, sport);
	steer_input(&kit.stack, kit_frame(f, 82));
	assert_int_equal(gz_load(&kit.stack.page->counters[GZ_COUNT_rx_dropped]), dropped + 1);
	assert_false(kit_has6(sport));
	assert_int_equal(kit.sent, 0);
}

static void a_wrong_checksum_is_dropped_a_partial_one_only_where_trusted(void **state)
{
	uint16_t sport = kit_sport(SELF, LISTENED), pseudo;
	uint8_t f[64];

	kit_make_tcp(f, PEER, sport, LISTENED, TCP_SYN);
	f[50] ^= 1;
	steer_input(&kit.stack, kit_frame(f, 54));
	assert_false(kit_has(sport, LISTENED));
	pseudo = checksum_pseudo(f + 14, 6, 20);
	memcpy(f + 50, &pseudo, 2);
	kit.group->trust_rx_checksum = 0;
	steer_input(&kit.stack, kit_frame(f, 54));
	assert_false(kit_has(sport, LISTENED));
	kit.group->trust_rx_checksum = 1;
	steer_input(&kit.stack, kit_frame(f, 54));
	kit.group->trust_rx_checksum = 0;
	assert_true(kit_has(sport, LISTENED));
}

static void fragments_come_together_and_the_whole_is_steered(void **state)
{
	uint16_t sport = kit_sport(SELF, LISTENED), word;
	uint8_t whole[64], f[64];

	kit_set_others(GZ_WORKER_GONE); /* the address pair may belong to another: alone, all is ours */
	kit_make_tcp(whole, PEER, sport, LISTENED, TCP_SYN);
	for (int part = 0; part < 2; part++) {
		uint32_t data = part ? 12 : 8;

		memcpy(f, whole, 34);
		memcpy(f + 34, whole + 34 + part * 8, data);
		f[17] = (uint8_t)(20 + data);
		f[20] = part ? 0 : 0x20;
		f[21] = part ? 1 : 0;
		f[24] = f[25] = 0;
		word = (uint16_t)~lwip_checksum(f + 14, 20);
		memcpy(f + 24, &word, 2);
		assert_false(kit_has(sport, LISTENED));
		steer_input(&kit.stack, kit_frame(f, 34 + data));
	}
	assert_true(kit_has(sport, LISTENED));
}

static void noise_is_survived_and_nothing_leaks(void **state)
{
	uint32_t free_before = rte_mempool_avail_count(kit.pool), seed = 3;

	kit_set_others(GZ_WORKER_GONE);
	for (int i = 0; i < 20000; i++) {
		uint8_t f[128];
		uint32_t len;

		kit_make_tcp(f, PEER, (uint16_t)(5000 + i % 50), LISTENED, (uint8_t)i);
		for (uint32_t k = 54; k < sizeof(f); k++)
			f[k] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
		for (uint32_t hits = seed >> 16 & 7; hits; hits--) {
			seed = seed * 1664525 + 1013904223;
			f[12 + (seed >> 8) % 60] = (uint8_t)(seed >> 24);
		}
		len = 1 + (seed >> 10) % sizeof(f);
		struct rte_mbuf *m = kit_frame(f, len);

		if (seed & 1)
			m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
		steer_input(&kit.stack, m);
	}
	for (int i = 0; i < 400; i++) { /* reassemblies and out-of-order data time out */
		kit.stack.now_ns += 1000000000ull;
		tcp_table_clock(kit.stack.now_ns);
		netif_timers(&kit.stack);
		tcp_table_timers(kit.stack.now_ns);
	}
	assert_int_equal(rte_mempool_avail_count(kit.pool), free_before);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_syn_of_ours_is_accepted, kit_reset),
		cmocka_unit_test_setup(a_syn_of_anothers_goes_to_its_owner, kit_reset),
		cmocka_unit_test_setup(we_adopt_a_syn_whose_owner_is_down, kit_reset),
		cmocka_unit_test_setup(a_connection_we_have_is_ours_whatever_its_hash, kit_reset),
		cmocka_unit_test_setup(an_unknown_segment_asks_all_and_the_last_one_resets, kit_reset),
		cmocka_unit_test_setup(nobody_goes_round_for_ever, kit_reset),
		cmocka_unit_test_setup(a_draining_worker_keeps_its_connections_but_gets_no_syn, kit_reset),
		cmocka_unit_test_setup(a_young_worker_does_not_refuse, kit_reset),
		cmocka_unit_test_setup(a_dead_process_is_seen_before_it_is_reaped, kit_reset),
		cmocka_unit_test_setup(arp_is_copied_as_a_reply, kit_reset),
		cmocka_unit_test_setup(ipv6_connections_are_steered_as_ipv4s, kit_reset),
		cmocka_unit_test_setup(tcp_behind_other_headers_never_reaches_lwip, kit_reset),
		cmocka_unit_test_setup(a_wrong_checksum_is_dropped_a_partial_one_only_where_trusted, kit_reset),
		cmocka_unit_test_setup(fragments_come_together_and_the_whole_is_steered, kit_reset),
		cmocka_unit_test_setup(noise_is_survived_and_nothing_leaks, kit_reset),
	};

	if (!eal_kit_start(argv[0]))
		return 77; /* meson: skipped */
	return cmocka_run_group_tests(tests, kit_start, kit_stop);
}
