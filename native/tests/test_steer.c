/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Steering, from the place of worker 1 of three. The other two are pages this test writes and processes that are this test,
 * so that they live and die as it says; what is handed to them is read from their rings.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_eal.h>
#include <rte_ether.h>
#include <rte_mbuf.h>

#include <lwip/priv/tcp_priv.h>

#include <gazelle/atomic.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "packet/checksum.h"
#include "packet/frame.h"
#include "tcp/isn.h"
#include "port/mempool.h"
#include "net/netif.h"
#include "packet/packet_ring.h"
#include "shared/page.h"
#include "port/port.h"
#include "softrss.h"
#include "net/local_port.h"
#include "net/rss.h"
#include "net/steer.h"
#include "net/udp_table.h"
#include "tcp/tcp_table.h"
#include "core/worker.h"

#define WORKERS 3u
#define SELF 1u
#define LISTENED 80

static char dir[64];
static struct protocol_stack stack;
static struct gz_group_page *group;
static struct gz_worker_page *others[WORKERS];
static struct packet_rings *theirs[WORKERS];
static struct port port;
static struct rte_mempool *pool;
static uint32_t sent, sent_rst;

/* ---- the application side and the port, as this test needs them */

static uint32_t told;
static struct frame told_of;

static void on_error(const struct frame *frame, const uint8_t *icmp)
{
	told++;
	told_of = *frame;
	assert_int_equal(icmp[0], IP_IS_V6_VAL(frame->local) ? 2 : 3);
	assert_int_equal(icmp[1], IP_IS_V6_VAL(frame->local) ? 0 : 3);
}

static uint16_t receive(struct port *p, struct rte_mbuf **frames, uint16_t n)
{
	return 0;
}

static void transmit(struct port *p, struct pbuf *frame)
{
	const uint8_t *bytes = frame->payload;

	sent++;
	if (frame->len >= 54 && bytes[12] == 8 && bytes[13] == 0 && bytes[23] == 6 && bytes[47] & TCP_RST)
		sent_rst++;
}

static void flush(struct port *p)
{
}

static const struct port_ops ops = { .receive = receive, .send = transmit, .flush = flush };

/* ---- frames */

static struct rte_mbuf *frame_of(const void *bytes, uint32_t len)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

	assert_non_null(m);
	memcpy(rte_pktmbuf_append(m, (uint16_t)len), bytes, len);
	return m;
}

static uint32_t make_tcp(uint8_t *f, uint32_t src_be, uint16_t sport, uint16_t dport, uint8_t flags)
{
	static const uint8_t peer[6] = { 2, 0, 0, 0, 0, 9 };
	uint16_t sum;

	memset(f, 0, 54);
	memcpy(f, port.mac, 6);
	memcpy(f + 6, peer, 6);
	f[12] = 8;
	f[14] = 0x45;
	f[17] = 40;
	f[22] = 64;
	f[23] = 6;
	memcpy(f + 26, &src_be, 4);
	memcpy(f + 30, &group->host_addr_be, 4);
	sum = (uint16_t)~lwip_checksum(f + 14, 20);
	memcpy(f + 24, &sum, 2);
	f[34] = (uint8_t)(sport >> 8), f[35] = (uint8_t)sport;
	f[36] = (uint8_t)(dport >> 8), f[37] = (uint8_t)dport;
	f[46] = 5 << 4;
	f[47] = flags;
	f[48] = 0xff;
	sum = (uint16_t)~checksum_fold((uint64_t)checksum_pseudo(f + 14, 6, 20) + lwip_checksum(f + 34, 20));
	memcpy(f + 50, &sum, 2);
	return 54;
}

/* "Port unreachable" about a datagram from our port 5353 to the peer's port 53, as a router between us says it. */
static uint32_t make_icmp_about_udp(uint8_t *f, uint32_t router_be, uint32_t peer_be, uint8_t fragment)
{
	uint16_t sum;

	make_tcp(f, router_be, 0, 0, 0);
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
	memcpy(f + 54, &group->host_addr_be, 4);
	memcpy(f + 58, &peer_be, 4);
	f[62] = 5353 >> 8, f[63] = 5353 & 255;
	f[65] = 53;
	sum = (uint16_t)~lwip_checksum(f + 34, 36);
	memcpy(f + 36, &sum, 2);
	return 70;
}

static uint32_t owner_of(uint32_t src_be, uint16_t sport, uint16_t dport)
{
	ip_addr_t remote = IPADDR4_INIT(src_be), local = IPADDR4_INIT(group->host_addr_be);

	return group->reta[rss_hash(stack.rss, &remote, sport, &local, dport) % GZ_RETA_SIZE];
}

#define PEER 0x0100000au /* 10.0.0.1 */

/* A source port whose flow belongs to `owner`. */
static uint16_t sport_of(uint32_t owner, uint16_t dport)
{
	static uint16_t next = 20000;

	while (owner_of(PEER, ++next, dport) != owner)
		;
	return next;
}

static void input(uint16_t sport, uint16_t dport, uint8_t flags)
{
	uint8_t f[64];

	steer_input(&stack, frame_of(f, make_tcp(f, PEER, sport, dport, flags)));
}

/* Takes the next record handed to `to`: its place on the chain, or -1 if there is none. */
static int handed_to(uint32_t to)
{
	struct packet_ring *ring = packet_ring_of(theirs[to], SELF, to);
	struct packet_record record;
	bool broken;

	if (!packet_ring_peek(ring, &record, &broken))
		return -1;
	packet_ring_drop(ring, &record);
	return record.visits;
}

static void hand_to_us(uint32_t from, uint32_t origin, uint8_t visits, uint16_t sport, uint16_t dport, uint8_t flags)
{
	struct packet_ring *ring = packet_ring_of(theirs[from], from, SELF);
	struct packet_record record = { .visits = visits, .origin = (uint16_t)origin };
	uint8_t f[64];

	record.len = make_tcp(f, PEER, sport, dport, flags);
	packet_ring_put(ring, &record, 0, f, record.len);
	packet_ring_commit(ring, &record);
	assert_int_equal(steer_poll(&stack, 10), 1);
}

static bool has(uint16_t sport, uint16_t dport)
{
	ip_addr_t remote = IPADDR4_INIT(PEER), local = IPADDR4_INIT(group->host_addr_be);

	return tcp_table_has(&local, dport, &remote, sport);
}

static void others_are(uint32_t state)
{
	for (uint32_t q = 0; q < WORKERS; q++)
		if (others[q])
			gz_store(&others[q]->state, state);
	stack.now_ns += 10000000;
}

static int set_up(void **state)
{
	others_are(GZ_WORKER_RUNNING);
	stack.started_ns = 0;
	sent = sent_rst = 0;
	for (uint32_t q = 0; q < WORKERS; q++)
		while (q != SELF && handed_to(q) >= 0)
			;
	return 0;
}

/* ---- tests */

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

		assert_int_equal(rss_hash(stack.rss, &remote, sport, &local, dport), softrss(tuple, 3, group->rss_key));
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
		assert_int_equal(rss_hash(stack.rss, &remote, (uint16_t)(seed >> 16), &local, (uint16_t)seed),
		                 softrss(tuple, 9, group->rss_key));
	}
}

static void a_syn_of_ours_is_accepted(void **state)
{
	uint16_t sport = sport_of(SELF, LISTENED);

	input(sport, LISTENED, TCP_SYN);
	assert_true(has(sport, LISTENED));
	assert_int_equal(handed_to(0), -1);
	assert_int_equal(handed_to(2), -1);
}

static void a_syn_of_anothers_goes_to_its_owner(void **state)
{
	uint16_t sport = sport_of(2, LISTENED);

	input(sport, LISTENED, TCP_SYN);
	assert_false(has(sport, LISTENED));
	assert_int_equal(handed_to(2), 0);
	assert_int_equal(handed_to(0), -1);
}

static void we_adopt_a_syn_whose_owner_is_down(void **state)
{
	uint16_t sport = sport_of(2, LISTENED);

	gz_store(&others[2]->state, GZ_WORKER_STARTING);
	input(sport, LISTENED, TCP_SYN);
	assert_true(has(sport, LISTENED));
	others_are(GZ_WORKER_RUNNING);
	input(sport, LISTENED, TCP_ACK); /* and keep its connection when the owner is back */
	assert_int_equal(handed_to(2), -1);
}

static void a_connection_we_have_is_ours_whatever_its_hash(void **state)
{
	uint16_t sport = sport_of(0, LISTENED);

	hand_to_us(0, 0, 1, sport, LISTENED, TCP_SYN); /* the owner runs but does not listen */
	assert_true(has(sport, LISTENED));
	input(sport, LISTENED, TCP_ACK);
	assert_int_equal(handed_to(0), -1);
}

static void an_unknown_segment_asks_all_and_the_last_one_resets(void **state)
{
	uint16_t sport = sport_of(2, 4444);

	input(sport, 4444, TCP_ACK);
	assert_int_equal(handed_to(2), 0);
	assert_int_equal(sent_rst, 0);
	hand_to_us(0, 2, 2, sport, 4444, TCP_ACK); /* chain 2, 0, 1: we are the last */
	assert_int_equal(sent_rst, 1);
	others_are(GZ_WORKER_GONE);
	input(sport, 4444, TCP_ACK); /* alone */
	assert_int_equal(sent_rst, 2);
}

static void nobody_goes_round_for_ever(void **state)
{
	uint16_t sport = sport_of(SELF, 4444);

	hand_to_us(0, 0, 0, sport, 4444, TCP_ACK); /* chain 1, 2, (0): on to 2 */
	assert_int_equal(handed_to(2), 1);
	assert_int_equal(handed_to(0), -1);
	hand_to_us(2, 2, 200, sport, 4444, TCP_ACK); /* a place beyond the chain's end is the end */
	assert_int_equal(handed_to(0), -1);
	assert_int_equal(handed_to(2), -1);
	assert_int_equal(sent_rst, 1);
}

static void a_draining_worker_keeps_its_connections_but_gets_no_syn(void **state)
{
	others_are(GZ_WORKER_DRAINING);
	input(sport_of(2, 4444), 4444, TCP_ACK);
	assert_int_equal(handed_to(2), 0);
	input(sport_of(2, LISTENED), LISTENED, TCP_SYN);
	assert_int_equal(handed_to(2), -1);
}

static void a_young_worker_does_not_refuse(void **state)
{
	others_are(GZ_WORKER_GONE);
	stack.started_ns = stack.now_ns;
	input(sport_of(SELF, 4444), 4444, TCP_SYN);
	assert_int_equal(sent, 0);
	stack.started_ns = 0;
	input(sport_of(SELF, 4444), 4444, TCP_SYN);
	assert_int_equal(sent_rst, 1);
}

static void a_dead_process_is_seen_before_it_is_reaped(void **state)
{
	uint16_t sport = sport_of(2, LISTENED);
	siginfo_t info;
	pid_t child = fork();

	if (!child)
		_exit(0);
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0); /* ended, not reaped */
	gz_store(&others[2]->pid, (uint32_t)child);
	input(sport, LISTENED, TCP_SYN);
	gz_store(&others[2]->pid, (uint32_t)getpid());
	waitpid(child, NULL, 0);
	assert_true(has(sport, LISTENED));
	assert_int_equal(handed_to(2), -1);
}

/* The peer asks for our hardware address. */
static void make_arp(uint8_t f[42])
{
	static const uint8_t peer[6] = { 2, 0, 0, 0, 0, 9 };
	uint32_t peer_ip = PEER;

	memset(f, 0, 42);
	memset(f, 0xff, 6);
	memcpy(f + 6, peer, 6);
	f[12] = 8, f[13] = 6, f[15] = 1, f[16] = 8, f[18] = 6, f[19] = 4, f[21] = 1;
	memcpy(f + 22, peer, 6);
	memcpy(f + 28, &peer_ip, 4);
	memcpy(f + 38, &group->host_addr_be, 4);
}

static void arp_is_copied_as_a_reply(void **state)
{
	uint8_t f[42], got[42];

	make_arp(f);
	steer_input(&stack, frame_of(f, sizeof(f)));
	assert_int_equal(sent, 1); /* we alone answer */
	for (uint32_t q = 0; q < WORKERS; q += 2) {
		struct packet_ring *ring = packet_ring_of(theirs[q], SELF, q);
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

#define HOST6 0xfd, 0x85, 0, 0x67, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2
#define PEER6 0xfd, 0x85, 0, 0x67, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1

/* An IPv6 frame to us with `len` bytes behind its header, which the caller fills. */
static uint8_t *make_ip6(uint8_t *f, uint8_t next, uint16_t len)
{
	static const uint8_t peer[6] = { 2, 0, 0, 0, 0, 9 }, src[16] = { PEER6 }, dst[16] = { HOST6 };

	memset(f, 0, 54u + len);
	memcpy(f, port.mac, 6);
	memcpy(f + 6, peer, 6);
	f[12] = 0x86, f[13] = 0xdd, f[14] = 0x60, f[19] = (uint8_t)len, f[20] = next, f[21] = 255;
	memcpy(f + 22, src, 16);
	memcpy(f + 38, dst, 16);
	return f + 54;
}

static void finish6(uint8_t *f, uint8_t protocol, uint16_t len, uint32_t at)
{
	uint16_t sum =
		(uint16_t)~checksum_fold((uint64_t)checksum_pseudo(f + 14, protocol, len) + lwip_checksum(f + 54, len));

	memcpy(f + 54 + at, &sum, 2);
}

static void make_syn6(uint8_t *tcp, uint16_t sport)
{
	tcp[0] = (uint8_t)(sport >> 8), tcp[1] = (uint8_t)sport;
	tcp[2] = (uint8_t)(LISTENED >> 8), tcp[3] = (uint8_t)LISTENED;
	tcp[12] = 5 << 4, tcp[13] = TCP_SYN, tcp[14] = 0xff;
}

static void read6(const uint8_t in[16], ip_addr_t *out)
{
	memset(out, 0, sizeof(*out));
	IP_SET_TYPE(out, IPADDR_TYPE_V6);
	memcpy(ip_2_ip6(out)->addr, in, 16);
}

static uint16_t sport6_of(uint32_t owner)
{
	static uint16_t next = 20000;
	ip_addr_t remote, local;

	read6((uint8_t[16]){ PEER6 }, &remote);
	read6((uint8_t[16]){ HOST6 }, &local);
	while (group->reta[rss_hash(stack.rss, &remote, ++next, &local, LISTENED) % GZ_RETA_SIZE] != owner)
		;
	return next;
}

static bool has6(uint16_t sport)
{
	ip_addr_t remote, local;

	read6((uint8_t[16]){ PEER6 }, &remote);
	read6((uint8_t[16]){ HOST6 }, &local);
	return tcp_table_has(&local, LISTENED, &remote, sport);
}

static void ipv6_connections_are_steered_as_ipv4s(void **state)
{
	uint16_t ours = sport6_of(SELF), theirs_port = sport6_of(0);
	uint8_t f[128];

	make_syn6(make_ip6(f, IPPROTO_TCP, 20), ours);
	finish6(f, IPPROTO_TCP, 20, 16);
	steer_input(&stack, frame_of(f, 74));
	assert_true(has6(ours));
	make_syn6(make_ip6(f, IPPROTO_TCP, 20), theirs_port);
	finish6(f, IPPROTO_TCP, 20, 16);
	steer_input(&stack, frame_of(f, 74));
	assert_false(has6(theirs_port));
	assert_int_equal(handed_to(0), 0);
}

static void tcp_behind_other_headers_never_reaches_lwip(void **state)
{
	uint64_t dropped = gz_load(&stack.page->counters[GZ_COUNT_rx_dropped]);
	uint16_t sport = sport6_of(SELF);
	uint8_t f[128], *options = make_ip6(f, IPPROTO_DSTOPTS, 28);

	options[0] = IPPROTO_TCP;
	options[2] = 1, options[3] = 4; /* padding */
	make_syn6(options + 8, sport);
	steer_input(&stack, frame_of(f, 82));
	assert_int_equal(gz_load(&stack.page->counters[GZ_COUNT_rx_dropped]), dropped + 1);
	assert_false(has6(sport));
	assert_int_equal(sent, 0);
}

static void an_advertisement_reaches_all(void **state)
{
	static const uint8_t peer[16] = { PEER6 };
	uint8_t f[128], *icmp = make_ip6(f, IPPROTO_ICMPV6, 32);

	icmp[0] = 136, icmp[4] = 0x60, icmp[24] = 2, icmp[25] = 1;
	memcpy(icmp + 8, peer, 16);
	memcpy(icmp + 26, f + 6, 6);
	finish6(f, IPPROTO_ICMPV6, 32, 2);
	steer_input(&stack, frame_of(f, 86));
	for (uint32_t q = 0; q < WORKERS; q++)
		if (q != SELF)
			assert_int_equal(handed_to(q), 0);
}

/* "Packet too big" about a datagram from our port 5353, by a path that takes so much. */
static void too_big(uint16_t mtu)
{
	uint8_t f[128], *icmp = make_ip6(f, IPPROTO_ICMPV6, 56), *inner = icmp + 8;

	icmp[0] = 2;
	icmp[6] = (uint8_t)(mtu >> 8), icmp[7] = (uint8_t)mtu;
	inner[0] = 0x60, inner[6] = IPPROTO_UDP;
	memcpy(inner + 8, f + 38, 16);
	memcpy(inner + 24, f + 22, 16);
	inner[40] = 5353 >> 8, inner[41] = 5353 & 255;
	finish6(f, IPPROTO_ICMPV6, 56, 2);
	steer_input(&stack, frame_of(f, 54 + 56));
}

static void a_path_that_takes_less_is_told_to_all_unless_it_lies(void **state)
{
	static const uint16_t lies[] = { 0, 48, 1279, 1500, 65535 };
	uint64_t dropped = gz_load(&stack.page->counters[GZ_COUNT_rx_dropped]);

	told = 0;
	too_big(1280);
	assert_int_equal(told, 1);
	assert_int_equal(told_of.local_port, 5353);
	for (uint32_t q = 0; q < WORKERS; q++)
		if (q != SELF)
			assert_int_equal(handed_to(q), 0);
	for (uint32_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++)
		too_big(lies[i]);
	assert_int_equal(gz_load(&stack.page->counters[GZ_COUNT_rx_dropped]), dropped + 5);
	assert_int_equal(told, 1);
	for (uint32_t q = 0; q < WORKERS; q++)
		if (q != SELF)
			assert_int_equal(handed_to(q), -1);
}

static void an_outgoing_port_brings_its_replies_home(void **state)
{
	ip_addr_t remote = IPADDR4_INIT(PEER), local = IPADDR4_INIT(group->host_addr_be);

	for (int i = 0; i < 100; i++) {
		uint16_t p = local_port_pick(&stack, &local, &remote, 6379);

		assert_true(p >= 32768);
		assert_int_equal(group->reta[rss_hash(stack.rss, &remote, 6379, &local, p) % GZ_RETA_SIZE], SELF);
	}
}

static void a_wrong_checksum_is_dropped_a_partial_one_only_where_trusted(void **state)
{
	uint16_t sport = sport_of(SELF, LISTENED), pseudo;
	uint8_t f[64];

	make_tcp(f, PEER, sport, LISTENED, TCP_SYN);
	f[50] ^= 1;
	steer_input(&stack, frame_of(f, 54));
	assert_false(has(sport, LISTENED));
	pseudo = checksum_pseudo(f + 14, 6, 20);
	memcpy(f + 50, &pseudo, 2);
	group->trust_rx_checksum = 0;
	steer_input(&stack, frame_of(f, 54));
	assert_false(has(sport, LISTENED));
	group->trust_rx_checksum = 1;
	steer_input(&stack, frame_of(f, 54));
	group->trust_rx_checksum = 0;
	assert_true(has(sport, LISTENED));
}

static void fragments_meet_and_the_whole_is_steered(void **state)
{
	uint16_t sport = sport_of(SELF, LISTENED), word;
	uint8_t whole[64], f[64];

	others_are(GZ_WORKER_GONE); /* the address pair may belong to another: alone, all is ours */
	make_tcp(whole, PEER, sport, LISTENED, TCP_SYN);
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
		assert_false(has(sport, LISTENED));
		steer_input(&stack, frame_of(f, 34 + data));
	}
	assert_true(has(sport, LISTENED));
}

static void an_icmp_error_about_a_datagram_is_told_here(void **state)
{
	uint8_t f[70];
	uint32_t len = make_icmp_about_udp(f, PEER, PEER + 0x01000000u, 0);

	told = 0;
	steer_input(&stack, frame_of(f, len));
	assert_int_equal(told, 1);
	assert_int_equal(told_of.local_port, 5353);
	assert_int_equal(told_of.remote_port, 53);
	assert_int_equal(ip_2_ip4(&told_of.local)->addr, group->host_addr_be);
	assert_int_equal(ip_2_ip4(&told_of.remote)->addr, PEER + 0x01000000u);
	f[60] ^= 1;
	steer_input(&stack, frame_of(f, len)); /* its checksum is wrong now */
	len = make_icmp_about_udp(f, PEER, PEER + 0x01000000u, 1);
	steer_input(&stack, frame_of(f, len)); /* a later fragment: those are no ports */
	assert_int_equal(told, 1);
}

static void noise_is_survived_and_nothing_leaks(void **state)
{
	uint32_t free_before = rte_mempool_avail_count(pool), seed = 3;

	others_are(GZ_WORKER_GONE);
	for (int i = 0; i < 20000; i++) {
		uint8_t f[128];
		uint32_t len;

		make_tcp(f, PEER, (uint16_t)(5000 + i % 50), LISTENED, (uint8_t)i);
		for (uint32_t k = 54; k < sizeof(f); k++)
			f[k] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
		for (uint32_t hits = seed >> 16 & 7; hits; hits--) {
			seed = seed * 1664525 + 1013904223;
			f[12 + (seed >> 8) % 60] = (uint8_t)(seed >> 24);
		}
		len = 1 + (seed >> 10) % sizeof(f);
		struct rte_mbuf *m = frame_of(f, len);

		if (seed & 1)
			m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
		steer_input(&stack, m);
	}
	for (int i = 0; i < 400; i++) { /* reassemblies and out-of-order data time out */
		stack.now_ns += 1000000000ull;
		tcp_table_clock(stack.now_ns);
		netif_timers(&stack);
		tcp_table_timers(stack.now_ns);
	}
	assert_int_equal(rte_mempool_avail_count(pool), free_before);
}

/* ---- the little world around it */

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
	return ERR_OK;
}

static int make_other(uint32_t q)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "%s/worker.%u.page", dir, q);
	fd = open(path, O_RDWR | O_CREAT, 0644);
	if (fd < 0 || ftruncate(fd, sizeof(struct gz_worker_page)))
		return -1;
	others[q] = mmap(NULL, sizeof(struct gz_worker_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (others[q] == MAP_FAILED)
		return -1;
	others[q]->magic = GZ_WORKER_MAGIC;
	gz_store(&others[q]->pid, (uint32_t)getpid());
	return packet_rings_open(dir, WORKERS, q, &theirs[q]);
}

static int start(void **state)
{
	static struct rte_mempool *p;
	struct tcp_pcb *pcb;
	uint8_t arp[42];

	snprintf(dir, sizeof(dir), "/tmp/gz-steer-XXXXXX");
	group = calloc(1, sizeof(*group));
	if (!mkdtemp(dir) || !group)
		return -1;
	snprintf(group->run_dir, sizeof(group->run_dir), "%s", dir);
	group->tot_queue_num = group->num_queue = WORKERS;
	group->driver = GZ_DRIVER_TAP;
	group->mtu = 1500;
	group->host_addr_be = 0x0200000a;
	group->netmask_be = 0x00ffffff;
	memcpy(group->host_addr6, (uint8_t[16]){ HOST6 }, 16);
	for (uint32_t i = 0; i < GZ_RSS_KEY_SIZE; i++)
		group->rss_key[i] = (uint8_t)(i * 37 + 11);
	for (uint32_t i = 0; i < GZ_RETA_SIZE; i++)
		group->reta[i] = (uint16_t)(i % WORKERS);
	for (uint32_t q = 0; q < WORKERS; q++)
		group->workers[q] = (struct gz_worker_plan){ .queue_id = q, .cpu = -1, .numa = -1, .mbufs = 1024 };
	snprintf(group->workers[SELF].pool, 32, "steer_test");
	stack.group = group;
	stack.queue_id = SELF;
	stack.plan = &group->workers[SELF];
	stack.now_ns = 1000000000000ull;
	stack.epoll_fd = epoll_create1(0);
	p = NULL;
	if (page_open(&stack) || isn_open() || mempool_open(group, stack.plan, &p))
		return -1;
	pool = p;
	port = (struct port){ .ops = &ops, .page = stack.page, .pool = pool, .mac = { 2, 0, 0, 0, 0, 1 }, .mtu = 1500 };
	stack.port = &port;
	for (uint32_t q = 0; q < WORKERS; q++)
		if (q != SELF && make_other(q))
			return -1;
	if (tcp_table_open() || steer_open(&stack) || netif_open(&stack))
		return -1;
	udp_table_on_error(on_error);
	tcp_table_clock(stack.now_ns);
	pcb = tcp_new_ip_type(IPADDR_TYPE_ANY);
	tcp_table_enter(0);
	tcp_table_listeners(LISTENED);
	if (tcp_bind(pcb, IP_ANY_TYPE, LISTENED) != ERR_OK)
		return -1;
	pcb = tcp_listen_with_backlog(pcb, 60000);
	tcp_accept(pcb, on_accept);
	tcp_table_leave();
	make_arp(arp);
	steer_input(&stack, frame_of(arp, sizeof(arp))); /* from now on answers need not wait for ARP */
	return 0;
}

static int stop(void **state)
{
	static const char *const files[] = { "rings", "worker.0.page", "worker.1.page", "worker.2.page", "worker.1.wake" };
	char path[128];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		unlink(path);
	}
	rmdir(rte_eal_get_runtime_dir());
	return rmdir(dir);
}

int main(int argc, char **argv)
{
	char prefix[48], *args[] = { argv[0],
		                     (char *)"--no-huge",
		                     (char *)"-m",
		                     (char *)"24",
		                     (char *)"--no-pci",
		                     (char *)"--no-telemetry",
		                     (char *)"--no-shconf",
		                     (char *)"--log-level=3",
		                     prefix };
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_hash_is_dpdks, set_up),
		cmocka_unit_test_setup(the_hash_is_dpdks_for_ipv6, set_up),
		cmocka_unit_test_setup(a_syn_of_ours_is_accepted, set_up),
		cmocka_unit_test_setup(a_syn_of_anothers_goes_to_its_owner, set_up),
		cmocka_unit_test_setup(we_adopt_a_syn_whose_owner_is_down, set_up),
		cmocka_unit_test_setup(a_connection_we_have_is_ours_whatever_its_hash, set_up),
		cmocka_unit_test_setup(an_unknown_segment_asks_all_and_the_last_one_resets, set_up),
		cmocka_unit_test_setup(nobody_goes_round_for_ever, set_up),
		cmocka_unit_test_setup(a_draining_worker_keeps_its_connections_but_gets_no_syn, set_up),
		cmocka_unit_test_setup(a_young_worker_does_not_refuse, set_up),
		cmocka_unit_test_setup(a_dead_process_is_seen_before_it_is_reaped, set_up),
		cmocka_unit_test_setup(arp_is_copied_as_a_reply, set_up),
		cmocka_unit_test_setup(ipv6_connections_are_steered_as_ipv4s, set_up),
		cmocka_unit_test_setup(tcp_behind_other_headers_never_reaches_lwip, set_up),
		cmocka_unit_test_setup(an_advertisement_reaches_all, set_up),
		cmocka_unit_test_setup(an_outgoing_port_brings_its_replies_home, set_up),
		cmocka_unit_test_setup(a_wrong_checksum_is_dropped_a_partial_one_only_where_trusted, set_up),
		cmocka_unit_test_setup(fragments_meet_and_the_whole_is_steered, set_up),
		cmocka_unit_test_setup(an_icmp_error_about_a_datagram_is_told_here, set_up),
		cmocka_unit_test_setup(a_path_that_takes_less_is_told_to_all_unless_it_lies, set_up),
		cmocka_unit_test_setup(noise_is_survived_and_nothing_leaks, set_up),
	};

	snprintf(prefix, sizeof(prefix), "--file-prefix=gz-test-%d", (int)getpid());
	if (rte_eal_init((int)(sizeof(args) / sizeof(args[0])), args) < 0)
		return 77; /* meson: skipped */
	return cmocka_run_group_tests(tests, start, stop);
}
