/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The tap port against the kernel's own view of the same device:
 *
 *     port_tap  --writev-->  gztest0 (tap, in a namespace of its own)  -->  packet socket with vnet headers
 *               <--readv---                                            <--
 * Needs root for the namespace and the device; skipped without.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_eal.h>
#include <rte_mbuf.h>

#include <lwip/pbuf.h>
#include <lwip/prot/tcp.h>

#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "packet/checksum.h"
#include "port/mempool.h"
#include "eal_kit.h"
#include "port/port.h"

#define DEVICE "gztest0"
#define HEADERS 54u

static struct gz_group_page group;
static struct gz_worker_page page;
static struct rte_mempool *pool;
static struct port *port;
static int wire; /* packet socket on the device */

/* A TCP segment as lwIP hands it over: headers in one pbuf, data referred to by another. */
static struct pbuf *segment(uint16_t sport, uint32_t seq, const void *data, uint16_t len, uint8_t flags)
{
	struct pbuf *head = pbuf_alloc(PBUF_RAW, HEADERS, PBUF_RAM), *body = pbuf_alloc(PBUF_RAW, len, PBUF_ROM);
	uint8_t *f = head->payload;
	uint16_t word;

	memset(f, 0, HEADERS);
	f[0] = 2, f[5] = 1, f[6] = 2, f[11] = 2, f[12] = 8;
	f[14] = 0x45;
	word = htons((uint16_t)(40 + len));
	memcpy(f + 16, &word, 2);
	f[22] = 64, f[23] = 6;
	f[26] = 10, f[29] = 2, f[30] = 10, f[33] = 1;
	word = (uint16_t)~lwip_checksum(f + 14, 20);
	memcpy(f + 24, &word, 2);
	word = htons(sport);
	memcpy(f + 34, &word, 2);
	f[37] = 80;
	seq = htonl(seq);
	memcpy(f + 38, &seq, 4);
	f[46] = 5 << 4, f[47] = flags, f[48] = 0xff;
	((struct pbuf_rom *)body)->payload = data;
	pbuf_cat(head, body);
	return head;
}

static void send_segment(uint16_t sport, uint32_t seq, const void *data, uint16_t len, uint8_t flags)
{
	struct pbuf *p = segment(sport, seq, data, len, flags);

	port->ops->send(port, p);
	pbuf_free(p); /* the port holds its own reference until flush */
}

/* The next TCP frame on the wire; others (IPv6 of the kernel) are skipped. Its length without the vnet header. */
static ssize_t on_wire(struct virtio_net_hdr *header, uint8_t *frame, size_t room)
{
	for (;;) {
		struct iovec iov[2] = { { header, sizeof(*header) }, { frame, room } };
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
		struct pollfd pfd = { .fd = wire, .events = POLLIN };
		ssize_t n;

		if (poll(&pfd, 1, 1000) != 1)
			return -1;
		n = recvmsg(wire, &msg, 0) - (ssize_t)sizeof(*header);
		if (n >= (ssize_t)HEADERS && frame[12] == 8 && frame[13] == 0 && frame[23] == 6)
			return n;
	}
}

static void segments_that_follow_each_other_leave_as_one(void **state)
{
	static uint8_t data[14480], got[65536];
	struct virtio_net_hdr header;

	for (uint32_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	for (uint32_t i = 0; i < 10; i++)
		send_segment(1000, 5000 + i * 1448, data + i * 1448, 1448, i == 9 ? TCP_ACK | TCP_PSH : TCP_ACK);
	port->ops->flush(port);
	assert_int_equal(on_wire(&header, got, sizeof(got)), HEADERS + sizeof(data));
	assert_int_equal(header.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(header.gso_size, 1448);
	assert_memory_equal(got + HEADERS, data, sizeof(data));
	assert_int_equal(got[47], TCP_ACK | TCP_PSH);
	assert_int_equal(lwip_checksum(got + 14, 20), 0xffff);
	assert_int_equal(got[16] << 8 | got[17], 40 + sizeof(data));
}

static void the_last_one_may_be_shorter_and_ends_it(void **state)
{
	static uint8_t data[4000], got[65536];
	struct virtio_net_hdr header;

	send_segment(1000, 100, data, 1448, TCP_ACK);
	send_segment(1000, 1548, data, 100, TCP_ACK);
	send_segment(1000, 1648, data, 1448, TCP_ACK);
	port->ops->flush(port);
	assert_int_equal(on_wire(&header, got, sizeof(got)), HEADERS + 1548);
	assert_int_equal(on_wire(&header, got, sizeof(got)), HEADERS + 1448);
	assert_int_equal(header.gso_type, VIRTIO_NET_HDR_GSO_NONE);
}

static void what_does_not_follow_is_not_joined(void **state)
{
	static uint8_t data[4000], got[65536];
	struct virtio_net_hdr header;

	send_segment(1000, 100, data, 1000, TCP_ACK);
	send_segment(1001, 1100, data, 1000, TCP_ACK); /* another flow */
	send_segment(1001, 3100, data, 1000, TCP_ACK); /* a gap */
	send_segment(1001, 4100, data, 1000, TCP_ACK | TCP_RST);
	port->ops->flush(port);
	for (int i = 0; i < 4; i++) {
		uint16_t pseudo;

		assert_int_equal(on_wire(&header, got, sizeof(got)), HEADERS + 1000);
		assert_int_equal(header.gso_type, VIRTIO_NET_HDR_GSO_NONE);
		pseudo = checksum_pseudo(got + 14, 6, 1020);
		if (header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
			assert_memory_equal(got + 50, &pseudo, 2); /* the kernel finishes it if it must */
	}
}

static void no_superframe_is_longer_than_ip_allows(void **state)
{
	static uint8_t data[1448], got[65600];
	struct virtio_net_hdr header;
	uint32_t total = 0;

	for (uint32_t i = 0; i < 100; i++)
		send_segment(1000, i * 1448, data, 1448, TCP_ACK);
	port->ops->flush(port);
	while (total < 100 * 1448) {
		ssize_t n = on_wire(&header, got, sizeof(got));

		assert_true(n > 0 && n <= 65535 + 14);
		total += (uint32_t)n - HEADERS;
	}
	assert_int_equal(total, 100 * 1448);
}

static struct rte_mbuf *receive_tcp(void)
{
	for (int tries = 0; tries < 100; tries++) {
		struct pollfd pfd = { .fd = port->wait_fd, .events = POLLIN };
		struct rte_mbuf *m;

		if (port->ops->receive(port, &m, 1)) {
			const uint8_t *f = rte_pktmbuf_mtod(m, const uint8_t *);

			if (f[12] == 8 && f[13] == 0)
				return m;
			rte_pktmbuf_free(m);
		}
		poll(&pfd, 1, 10);
	}
	return NULL;
}

static void a_superframe_comes_in_whole_and_verified(void **state)
{
	static uint8_t data[60000], frame[HEADERS + sizeof(data)], got[sizeof(frame)];
	struct virtio_net_hdr header = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		                         .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		                         .hdr_len = HEADERS,
		                         .gso_size = 1448,
		                         .csum_start = 34,
		                         .csum_offset = 16 };
	struct iovec iov[2] = { { &header, sizeof(header) }, { frame, sizeof(frame) } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	struct pbuf *p = segment(1000, 1, data, (uint16_t)sizeof(data), TCP_ACK);
	uint32_t free_before;
	struct rte_mbuf *m;
	uint16_t pseudo;

	for (uint32_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 13);
	pbuf_copy_partial(p, frame, sizeof(frame), 0);
	pbuf_free(p);
	pseudo = checksum_pseudo(frame + 14, 6, 20 + sizeof(data));
	memcpy(frame + 50, &pseudo, 2);
	port->ops->receive(port, &m, 0);
	free_before = rte_mempool_avail_count(pool);
	assert_int_equal(sendmsg(wire, &msg, 0), sizeof(header) + sizeof(frame));
	m = receive_tcp();
	assert_non_null(m);
	assert_int_equal(m->pkt_len, sizeof(frame));
	assert_true(m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_GOOD);
	assert_ptr_equal(rte_pktmbuf_read(m, 0, sizeof(frame), got), got); /* copied: it is a chain */
	assert_memory_equal(got + HEADERS, data, sizeof(data));
	rte_pktmbuf_free(m);
	assert_true(rte_mempool_avail_count(pool) + 40 >= free_before); /* but for what is posted for the next frame */
}

static int start(void **state)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	struct ifreq ifr = { .ifr_name = DEVICE };
	int on = 1, control = socket(AF_INET, SOCK_DGRAM, 0);

	group.mtu = 1500;
	group.driver = GZ_DRIVER_TAP;
	snprintf(group.device, sizeof(group.device), DEVICE);
	group.workers[0] = (struct gz_worker_plan){ .cpu = -1, .numa = -1, .mbufs = 1024, .pool = "tap_test" };
	if (mempool_open(&group, &group.workers[0], &pool))
		return -1;
	const struct port_setup setup = { .group = &group, .plan = &group.workers[0], .page = &page, .pool = pool };

	if (port_tap_open(&setup, &port))
		return -1;
	if (ioctl(control, SIOCGIFFLAGS, &ifr))
		return -1;
	ifr.ifr_flags |= IFF_UP;
	if (ioctl(control, SIOCSIFFLAGS, &ifr))
		return -1;
	close(control);
	wire = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	to.sll_ifindex = (int)if_nametoindex(DEVICE);
	if (wire < 0 || setsockopt(wire, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ||
	    setsockopt(wire, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
	    bind(wire, (struct sockaddr *)&to, sizeof(to)))
		return -1;
	return 0;
}

static int stop(void **state)
{
	rmdir(rte_eal_get_runtime_dir());
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(segments_that_follow_each_other_leave_as_one),
		cmocka_unit_test(the_last_one_may_be_shorter_and_ends_it),
		cmocka_unit_test(what_does_not_follow_is_not_joined),
		cmocka_unit_test(no_superframe_is_longer_than_ip_allows),
		cmocka_unit_test(a_superframe_comes_in_whole_and_verified),
	};

	if (unshare(CLONE_NEWNET) || access("/dev/net/tun", R_OK | W_OK) || !eal_kit_start(argv[0]))
		return 77; /* meson: skipped */
	return cmocka_run_group_tests(tests, start, stop);
}
