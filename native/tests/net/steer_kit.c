/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_eal.h>
#include <rte_mbuf.h>

#include <lwip/priv/tcp_priv.h>

#include <gazelle/atomic.h>

#include "net/netif.h"
#include "net/rss.h"
#include "net/steer.h"
#include "net/steer_kit.h"
#include "net/udp_table.h"
#include "packet/checksum.h"
#include "port/mempool.h"
#include "shared/page.h"
#include "tcp/isn.h"
#include "tcp/tcp_table.h"

struct steer_kit kit;
static char dir[64];

static void on_error(const struct frame *frame, const uint8_t *icmp)
{
	kit.told++;
	kit.told_of = *frame;
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

	kit.sent++;
	if (frame->len >= 54 && bytes[12] == 8 && bytes[13] == 0 && bytes[23] == 6 && bytes[47] & TCP_RST)
		kit.sent_rst++;
}

static void flush(struct port *p)
{
}

static const struct port_ops ops = { .receive = receive, .send = transmit, .flush = flush };

struct rte_mbuf *kit_frame(const void *bytes, uint32_t len)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(kit.pool);

	assert_non_null(m);
	memcpy(rte_pktmbuf_append(m, (uint16_t)len), bytes, len);
	return m;
}

uint32_t kit_make_tcp(uint8_t *f, uint32_t src_be, uint16_t sport, uint16_t dport, uint8_t flags)
{
	static const uint8_t peer[6] = { 2, 0, 0, 0, 0, 9 };
	uint16_t sum;

	memset(f, 0, 54);
	memcpy(f, kit.port.mac, 6);
	memcpy(f + 6, peer, 6);
	f[12] = 8;
	f[14] = 0x45;
	f[17] = 40;
	f[22] = 64;
	f[23] = 6;
	memcpy(f + 26, &src_be, 4);
	memcpy(f + 30, &kit.group->host_addr_be, 4);
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

static uint32_t owner_of(uint32_t src_be, uint16_t sport, uint16_t dport)
{
	ip_addr_t remote = IPADDR4_INIT(src_be), local = IPADDR4_INIT(kit.group->host_addr_be);

	return kit.group->reta[rss_hash(kit.stack.rss, &remote, sport, &local, dport) % GZ_RETA_SIZE];
}

uint16_t kit_sport(uint32_t owner, uint16_t dport)
{
	static uint16_t next = 20000;

	while (owner_of(PEER, ++next, dport) != owner)
		;
	return next;
}

void kit_input(uint16_t sport, uint16_t dport, uint8_t flags)
{
	uint8_t f[64];

	steer_input(&kit.stack, kit_frame(f, kit_make_tcp(f, PEER, sport, dport, flags)));
}

int kit_handed_to(uint32_t to)
{
	struct packet_ring *ring = packet_ring_of(kit.theirs[to], SELF, to);
	struct packet_record record;
	bool broken;

	if (!packet_ring_peek(ring, &record, &broken))
		return -1;
	packet_ring_drop(ring, &record);
	return record.visits;
}

void kit_hand_over(uint32_t from, uint32_t origin, uint8_t visits, uint16_t sport, uint16_t dport, uint8_t flags)
{
	struct packet_ring *ring = packet_ring_of(kit.theirs[from], from, SELF);
	struct packet_record record = { .visits = visits, .origin = (uint16_t)origin };
	uint8_t f[64];

	record.len = kit_make_tcp(f, PEER, sport, dport, flags);
	packet_ring_put(ring, &record, 0, f, record.len);
	packet_ring_commit(ring, &record);
	assert_int_equal(steer_poll(&kit.stack, 10), 1);
}

bool kit_has(uint16_t sport, uint16_t dport)
{
	ip_addr_t remote = IPADDR4_INIT(PEER), local = IPADDR4_INIT(kit.group->host_addr_be);

	return tcp_table_has(&local, dport, &remote, sport);
}

void kit_set_others(uint32_t state)
{
	for (uint32_t q = 0; q < WORKERS; q++)
		if (kit.others[q])
			gz_store(&kit.others[q]->state, state);
	kit.stack.now_ns += 10000000;
}

int kit_reset(void **state)
{
	kit_set_others(GZ_WORKER_RUNNING);
	kit.stack.started_ns = 0;
	kit.sent = kit.sent_rst = 0;
	for (uint32_t q = 0; q < WORKERS; q++)
		while (q != SELF && kit_handed_to(q) >= 0)
			;
	return 0;
}

void kit_make_arp(uint8_t f[42])
{
	static const uint8_t peer[6] = { 2, 0, 0, 0, 0, 9 };
	uint32_t peer_ip = PEER;

	memset(f, 0, 42);
	memset(f, 0xff, 6);
	memcpy(f + 6, peer, 6);
	f[12] = 8, f[13] = 6, f[15] = 1, f[16] = 8, f[18] = 6, f[19] = 4, f[21] = 1;
	memcpy(f + 22, peer, 6);
	memcpy(f + 28, &peer_ip, 4);
	memcpy(f + 38, &kit.group->host_addr_be, 4);
}

uint8_t *kit_make_ip6(uint8_t *f, uint8_t next, uint16_t len)
{
	static const uint8_t peer[6] = { 2, 0, 0, 0, 0, 9 }, src[16] = { PEER6 }, dst[16] = { HOST6 };

	memset(f, 0, 54u + len);
	memcpy(f, kit.port.mac, 6);
	memcpy(f + 6, peer, 6);
	f[12] = 0x86, f[13] = 0xdd, f[14] = 0x60, f[19] = (uint8_t)len, f[20] = next, f[21] = 255;
	memcpy(f + 22, src, 16);
	memcpy(f + 38, dst, 16);
	return f + 54;
}

void kit_finish_ip6(uint8_t *f, uint8_t protocol, uint16_t len, uint32_t at)
{
	uint16_t sum =
		(uint16_t)~checksum_fold((uint64_t)checksum_pseudo(f + 14, protocol, len) + lwip_checksum(f + 54, len));

	memcpy(f + 54 + at, &sum, 2);
}

void kit_make_syn6(uint8_t *tcp, uint16_t sport)
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

uint16_t kit_sport6(uint32_t owner)
{
	static uint16_t next = 20000;
	ip_addr_t remote, local;

	read6((uint8_t[16]){ PEER6 }, &remote);
	read6((uint8_t[16]){ HOST6 }, &local);
	while (kit.group->reta[rss_hash(kit.stack.rss, &remote, ++next, &local, LISTENED) % GZ_RETA_SIZE] != owner)
		;
	return next;
}

bool kit_has6(uint16_t sport)
{
	ip_addr_t remote, local;

	read6((uint8_t[16]){ PEER6 }, &remote);
	read6((uint8_t[16]){ HOST6 }, &local);
	return tcp_table_has(&local, LISTENED, &remote, sport);
}

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
	kit.others[q] = mmap(NULL, sizeof(struct gz_worker_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (kit.others[q] == MAP_FAILED)
		return -1;
	kit.others[q]->magic = GZ_WORKER_MAGIC;
	gz_store(&kit.others[q]->pid, (uint32_t)getpid());
	return packet_rings_open(dir, WORKERS, q, &kit.theirs[q]);
}

int kit_start(void **state)
{
	struct tcp_pcb *pcb;
	uint8_t arp[42];

	snprintf(dir, sizeof(dir), "/tmp/gz-steer-XXXXXX");
	kit.group = calloc(1, sizeof(*kit.group));
	if (!mkdtemp(dir) || !kit.group)
		return -1;
	snprintf(kit.group->run_dir, sizeof(kit.group->run_dir), "%s", dir);
	kit.group->tot_queue_num = kit.group->num_queue = WORKERS;
	kit.group->driver = GZ_DRIVER_TAP;
	kit.group->mtu = 1500;
	kit.group->host_addr_be = 0x0200000a;
	kit.group->netmask_be = 0x00ffffff;
	memcpy(kit.group->host_addr6, (uint8_t[16]){ HOST6 }, 16);
	memcpy(kit.group->own[0], (uint8_t[16]){ [10] = 0xff, 0xff, 10, 0, 0, 2 }, 16);
	memcpy(kit.group->own[1], kit.group->host_addr6, 16);
	for (uint32_t i = 0; i < GZ_RSS_KEY_SIZE; i++)
		kit.group->rss_key[i] = (uint8_t)(i * 37 + 11);
	for (uint32_t i = 0; i < GZ_RETA_SIZE; i++)
		kit.group->reta[i] = (uint16_t)(i % WORKERS);
	for (uint32_t q = 0; q < WORKERS; q++)
		kit.group->workers[q] = (struct gz_worker_plan){ .queue_id = q, .cpu = -1, .numa = -1, .mbufs = 1024 };
	snprintf(kit.group->workers[SELF].pool, 32, "steer_test");
	kit.stack.group = kit.group;
	kit.stack.queue_id = SELF;
	kit.stack.plan = &kit.group->workers[SELF];
	kit.stack.now_ns = 1000000000000ull;
	kit.stack.epoll_fd = epoll_create1(0);
	if (page_open(&kit.stack) || isn_open() || mempool_open(kit.group, kit.stack.plan, &kit.pool))
		return -1;
	kit.port = (struct port){
		.ops = &ops, .page = kit.stack.page, .pool = kit.pool, .mac = { 2, 0, 0, 0, 0, 1 }, .mtu = 1500
	};
	kit.stack.port = &kit.port;
	for (uint32_t q = 0; q < WORKERS; q++)
		if (q != SELF && make_other(q))
			return -1;
	if (tcp_table_open() || steer_open(&kit.stack) || netif_open(&kit.stack))
		return -1;
	udp_table_on_error(on_error);
	tcp_table_clock(kit.stack.now_ns);
	pcb = tcp_new_ip_type(IPADDR_TYPE_ANY);
	tcp_table_enter(0);
	tcp_table_listeners(LISTENED);
	if (tcp_bind(pcb, IP_ANY_TYPE, LISTENED) != ERR_OK)
		return -1;
	pcb = tcp_listen_with_backlog(pcb, 60000);
	tcp_accept(pcb, on_accept);
	tcp_table_leave();
	kit_make_arp(arp);
	steer_input(&kit.stack, kit_frame(arp, sizeof(arp))); /* from now on answers need not wait for ARP */
	return 0;
}

int kit_stop(void **state)
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
