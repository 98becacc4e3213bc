/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The connection table under lwIP: a client and a server pcb of the same lwIP talk over a netif that hands every segment
 * back, each in its own bucket, on a clock the test owns.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <lwip/init.h>
#include <lwip/ip4.h>
#include <lwip/netif.h>
#include <hooks.h>

#include <lwip/priv/tcp_priv.h>

#include "socket/ahead.h"
#include "tcp/isn.h"
#include "tcp/tcp_table.h"

#define PORT 80
#define MS 1000000ull
#define WIRE 4096

static struct netif netif;
static ip4_addr_t here = { 0x0200000a }; /* 10.0.0.2 */
static uint64_t now;
static struct pbuf *wire[WIRE];
static uint32_t wire_head, wire_tail, sent, lose_next;
static uint32_t accepted, received;
static struct tcp_pcb *server;

/* What netif.c and page.c give lwIP in the worker. */
u32_t sys_now(void);
u32_t sys_now(void)
{
	return (u32_t)(now / MS);
}

const ip6_addr_t *lwip_gateway6(struct netif *out, const ip6_addr_t *dest)
{
	(void)out;
	(void)dest;
	return NULL;
}

u16_t lwip_tcp_path_mtu(const ip_addr_t *dest, const struct netif *out)
{
	return out->mtu;
}

u16_t lwip_ip6_path_mtu(const ip6_addr_t *dest, const struct netif *out)
{
	return out->mtu;
}

static err_t output(struct netif *n, struct pbuf *p, const ip4_addr_t *to)
{
	sent++;
	if (lose_next) {
		lose_next--;
		return ERR_OK;
	}
	wire[wire_head++ % WIRE] = pbuf_clone(PBUF_LINK, PBUF_RAM, p);
	return ERR_OK;
}

static err_t init(struct netif *n)
{
	n->mtu = 1500;
	n->output = output;
	n->flags = NETIF_FLAG_LINK_UP;
	return ERR_OK;
}

/* Delivers what is on the wire, each segment in its receiver's bucket, until the wire is silent. */
static void deliver(void)
{
	while (wire_tail != wire_head) {
		struct pbuf *p = wire[wire_tail++ % WIRE];
		const struct ip_hdr *ip = p->payload;
		const struct tcp_hdr *tcp = (const struct tcp_hdr *)((u8_t *)p->payload + IP_HLEN);
		ip_addr_t local = IPADDR4_INIT(ip->dest.addr), remote = IPADDR4_INIT(ip->src.addr);

		tcp_table_listeners(lwip_ntohs(tcp->dest));
		tcp_table_enter(tcp_table_bucket(&local, lwip_ntohs(tcp->dest), &remote, lwip_ntohs(tcp->src)));
		ip4_input(p, &netif);
		tcp_table_leave();
	}
}

static void pass(uint64_t ms)
{
	for (uint64_t i = 0; i < ms; i += 5) {
		now += 5 * MS;
		tcp_table_clock(now);
		tcp_table_timers(now);
		deliver();
	}
}

/* What comes out of order: as stream_receive.c, but for the bytes. */
static struct ahead ahead;
static uint32_t follows;

static int keep(struct tcp_pcb *pcb, uint32_t seqno, const struct pbuf *p, int fin, uint32_t *left, uint32_t *right)
{
	const struct ahead_piece *piece = ahead_add(&ahead, seqno, seqno + p->tot_len);

	assert_ptr_equal(pcb, server);
	*left = piece->from;
	*right = piece->to;
	return 1;
}

static uint32_t following(struct tcp_pcb *pcb)
{
	follows = pcb == server ? ahead_take(&ahead, pcb->rcv_nxt) : 0;
	return follows;
}

static int fin_follows(struct tcp_pcb *pcb)
{
	return 0;
}

static const struct ahead_owner owner = { keep, following, fin_follows };

static err_t on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	if (!p) {
		tcp_set_flags(pcb, TF_RXCLOSED);
		return tcp_shutdown(pcb, 0, 1);
	}
	received += p->tot_len + follows;
	tcp_recved(pcb, (u16_t)(p->tot_len + follows));
	pbuf_free(p);
	return ERR_OK;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
	accepted++;
	server = pcb;
	tcp_recv(pcb, on_recv);
	return ERR_OK;
}

static void listen_on(uint16_t port)
{
	struct tcp_pcb *pcb = tcp_new_ip_type(IPADDR_TYPE_V4);

	tcp_table_enter(0);
	tcp_table_listeners(port);
	assert_int_equal(tcp_bind(pcb, IP4_ADDR_ANY, port), ERR_OK);
	pcb = tcp_listen_with_backlog(pcb, 1000);
	tcp_accept(pcb, on_accept);
	tcp_table_leave();
}

static ip_addr_t address(void)
{
	return (ip_addr_t)IPADDR4_INIT(here.addr);
}

static uint32_t bucket_of(uint16_t local_port, uint16_t remote_port)
{
	ip_addr_t a = address();

	return tcp_table_bucket(&a, local_port, &a, remote_port);
}

static struct tcp_pcb *connect_from(uint16_t port, uint16_t to)
{
	struct tcp_pcb *pcb = tcp_new_ip_type(IPADDR_TYPE_V4);
	ip_addr_t a = address();

	tcp_table_enter(bucket_of(port, to));
	assert_int_equal(tcp_bind(pcb, &a, port), ERR_OK);
	assert_int_equal(tcp_connect(pcb, &a, to, NULL), ERR_OK);
	tcp_recv(pcb, on_recv);
	tcp_table_leave();
	return pcb;
}

static bool has(uint16_t local_port, uint16_t remote_port)
{
	ip_addr_t a = address();

	return tcp_table_has(&a, local_port, &a, remote_port);
}

static void write_bytes(struct tcp_pcb *pcb, uint32_t bucket, const void *bytes, uint16_t len)
{
	tcp_table_enter(bucket);
	assert_int_equal(tcp_write(pcb, bytes, len, 0), ERR_OK);
	tcp_output(pcb);
	tcp_table_leave();
}

static int set_up(void **state)
{
	accepted = received = 0;
	server = NULL;
	memset(&ahead, 0, sizeof(ahead));
	return 0;
}

static void a_connection_is_found_by_its_tuple_only(void **state)
{
	struct tcp_pcb *pcb = connect_from(1000, PORT);

	assert_true(has(1000, PORT));
	assert_false(has(1001, PORT));
	deliver();
	assert_int_equal(accepted, 1);
	assert_true(has(PORT, 1000));
	tcp_table_enter(bucket_of(1000, PORT));
	tcp_abort(pcb);
	tcp_table_leave();
	assert_false(has(1000, PORT));
	deliver();
	assert_false(has(PORT, 1000));
}

static void a_listener_is_found_by_address_and_port(void **state)
{
	ip_addr_t a = address();

	assert_true(tcp_table_listens(&a, PORT));
	assert_false(tcp_table_listens(&a, PORT + 1));
}

static void an_idle_connection_costs_no_timer(void **state)
{
	uint32_t before;

	connect_from(1100, PORT);
	deliver();
	pass(1000);
	before = sent;
	assert_true(tcp_table_next_timer(now) == UINT64_MAX);
	pass(60000);
	assert_int_equal(sent, before);
	assert_true(has(1100, PORT));
}

static void lost_data_is_sent_again_after_the_rto(void **state)
{
	static const char hello[] = "hello";
	struct tcp_pcb *pcb = connect_from(1200, PORT);
	uint64_t start;

	deliver();
	pass(500);
	lose_next = 1;
	write_bytes(pcb, bucket_of(1200, PORT), hello, 5);
	deliver();
	assert_int_equal(received, 0);
	start = now;
	while (!received && now - start < 10000 * MS)
		pass(5);
	assert_int_equal(received, 5);
	assert_true(now - start >= 195 * MS && now - start <= 320 * MS);
}

static void one_lost_segment_of_many_needs_no_rto(void **state)
{
	static char bulk[14480];
	struct tcp_pcb *pcb = connect_from(1300, PORT);

	deliver();
	pass(500);
	lose_next = 1; /* the first of ten segments */
	write_bytes(pcb, bucket_of(1300, PORT), bulk, sizeof(bulk));
	deliver();
	assert_int_equal(received, sizeof(bulk));
}

static void two_lost_segments_of_one_window_need_no_rto(void **state)
{
	static char bulk[14480];
	struct tcp_pcb *pcb = connect_from(1400, PORT);
	uint32_t n;

	deliver();
	pass(500);
	write_bytes(pcb, bucket_of(1400, PORT), bulk, sizeof(bulk));
	n = wire_head - wire_tail;
	assert_true(n >= 8);
	pbuf_free(wire[(wire_tail + 1) % WIRE]); /* the second and the fourth never arrive */
	pbuf_free(wire[(wire_tail + 3) % WIRE]);
	wire[(wire_tail + 1) % WIRE] = wire[wire_tail % WIRE];
	wire[(wire_tail + 3) % WIRE] = wire[(wire_tail + 2) % WIRE];
	wire[(wire_tail + 2) % WIRE] = wire[(wire_tail + 1) % WIRE];
	wire_tail += 2;
	deliver();
	assert_int_equal(received, sizeof(bulk));
}

static void a_delayed_ack_leaves_within_25_ms(void **state)
{
	struct tcp_pcb *pcb = connect_from(1500, PORT);
	uint32_t before;

	deliver();
	pass(500);
	write_bytes(pcb, bucket_of(1500, PORT), "x", 1);
	deliver();
	before = sent;
	pass(30);
	assert_int_equal(sent, before + 1);
}

static void time_wait_gives_way_to_a_newer_syn(void **state)
{
	struct tcp_pcb *pcb = connect_from(1600, PORT);
	uint32_t client_bucket = bucket_of(1600, PORT);

	deliver();
	/* the server closes first, so it is the one in TIME-WAIT */
	tcp_table_enter(bucket_of(PORT, 1600));
	tcp_set_flags(server, TF_RXCLOSED);
	assert_int_equal(tcp_shutdown(server, 0, 1), ERR_OK);
	tcp_table_leave();
	deliver();
	pass(100);
	assert_false(has(1600, PORT));
	assert_true(has(PORT, 1600));
	assert_int_equal(accepted, 1);
	pass(1000);
	pcb = connect_from(1600, PORT);
	deliver();
	assert_int_equal(accepted, 2);
	tcp_table_enter(client_bucket);
	assert_int_equal(pcb->state, ESTABLISHED);
	tcp_table_leave();
}

static void time_wait_ends_after_two_msl(void **state)
{
	connect_from(1700, PORT);
	deliver();
	tcp_table_enter(bucket_of(PORT, 1700));
	tcp_set_flags(server, TF_RXCLOSED);
	tcp_shutdown(server, 0, 1);
	tcp_table_leave();
	deliver();
	pass(55000);
	assert_true(has(PORT, 1700));
	pass(10000);
	assert_false(has(PORT, 1700));
}

static void a_small_segment_waits_for_a_small_one_only(void **state)
{
	static char bytes[1449];
	struct tcp_pcb *pcb = connect_from(1800, PORT);
	uint32_t before;

	deliver();
	pass(500);
	before = sent;
	write_bytes(pcb, bucket_of(1800, PORT), bytes, sizeof(bytes)); /* one full segment and a byte: both leave at once */
	assert_int_equal(sent, before + 2);
	write_bytes(pcb, bucket_of(1800, PORT), bytes, 1); /* this one waits for the first byte's ACK */
	assert_int_equal(sent, before + 2);
	deliver();
	pass(50);
	assert_int_equal(received, 1450);
}

static void a_closed_listener_is_forgotten_by_all_buckets(void **state)
{
	struct tcp_pcb_listen *listener;
	uint16_t port;

	listen_on(81);
	for (port = 2000; port < 2050; port++)
		connect_from(port, 81);
	deliver();
	assert_int_equal(accepted, 50);
	tcp_table_listeners(81);
	listener = tcp_listen_pcbs.listen_pcbs;
	assert_int_equal(listener->local_port, 81);
	tcp_table_enter(bucket_of(81, 2000));
	tcp_close((struct tcp_pcb *)listener);
	tcp_table_leave();
	for (port = 2000; port < 2050; port++) {
		tcp_table_enter(bucket_of(81, port));
		for (const struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
			assert_true(pcb->listener != listener);
		tcp_table_leave();
	}
}

static void a_window_limit_is_kept(void **state)
{
	static char bulk[60000];
	struct tcp_pcb *pcb = connect_from(1900, PORT);

	deliver();
	tcp_table_enter(bucket_of(PORT, 1900));
	tcp_set_rcv_wnd_limit(server, 100000);
	assert_int_equal(server->rcv_wnd, 100000);
	tcp_table_leave();
	write_bytes(pcb, bucket_of(1900, PORT), bulk, sizeof(bulk));
	deliver();
	pass(50);
	assert_int_equal(received, sizeof(bulk));
	tcp_table_enter(bucket_of(PORT, 1900));
	assert_int_equal(server->rcv_wnd, 100000);
	tcp_table_leave();
}

static int start(void **state)
{
	ip4_addr_t mask = { 0x00ffffff };

	now = 1000000 * MS;
	if (isn_open() || tcp_table_open())
		return -1;
	lwip_init();
	netif_add(&netif, &here, &mask, NULL, NULL, init, ip4_input);
	netif_set_default(&netif);
	netif_set_up(&netif);
	tcp_table_clock(now);
	ahead_set_owner(&owner);
	listen_on(PORT);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_connection_is_found_by_its_tuple_only, set_up),
		cmocka_unit_test_setup(a_listener_is_found_by_address_and_port, set_up),
		cmocka_unit_test_setup(an_idle_connection_costs_no_timer, set_up),
		cmocka_unit_test_setup(lost_data_is_sent_again_after_the_rto, set_up),
		cmocka_unit_test_setup(one_lost_segment_of_many_needs_no_rto, set_up),
		cmocka_unit_test_setup(two_lost_segments_of_one_window_need_no_rto, set_up),
		cmocka_unit_test_setup(a_delayed_ack_leaves_within_25_ms, set_up),
		cmocka_unit_test_setup(time_wait_gives_way_to_a_newer_syn, set_up),
		cmocka_unit_test_setup(time_wait_ends_after_two_msl, set_up),
		cmocka_unit_test_setup(a_small_segment_waits_for_a_small_one_only, set_up),
		cmocka_unit_test_setup(a_closed_listener_is_forgotten_by_all_buckets, set_up),
		cmocka_unit_test_setup(a_window_limit_is_kept, set_up),
	};

	return cmocka_run_group_tests(tests, start, NULL);
}
