/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Any DPDK device: queue 0 of the one port the plan's EAL arguments made (for af_xdp that is one queue of a kernel netdev).
 * A frame to send is copied once into a linear mbuf, which every driver can take (af_xdp sends chained ones wrong); checksums
 * are the device's if it offers, else ours over the copy. Bursts leave at flush.
 *
 * The device is never closed: closing an af_xdp port detaches the XDP program of the whole netdev, and with it the others.
 */
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <lwip/def.h>
#include <lwip/pbuf.h>
#include <lwip/prot/tcp.h>

#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "packet/checksum.h"
#include "core/log.h"
#include "port/mempool.h"
#include "port/port.h"
#include "core/counters.h"

#define BURST 64u
#define EMPTY_GAP_NS 5000ull /* an empty burst of af_xdp or af_packet is a system call: not more often than this */
#ifndef AF_XDP
#define AF_XDP 44
#endif

struct ethdev {
	struct port port;
	uint16_t id;
	bool tcp_offload, gap;
	const uint64_t *now_ns;
	uint64_t empty_ns; /* the last burst was empty, then */
	uint32_t queued_count;
	struct rte_mbuf *queued[BURST];
};

static uint16_t ethdev_receive(struct port *port, struct rte_mbuf **frames, uint16_t n)
{
	struct ethdev *dev = (struct ethdev *)port;
	uint16_t count;

	if (dev->gap && *dev->now_ns - dev->empty_ns < EMPTY_GAP_NS)
		return 0;
	count = rte_eth_rx_burst(dev->id, 0, frames, n);
	dev->empty_ns = count ? 0 : *dev->now_ns;
	return count;
}

static void ethdev_flush(struct port *port)
{
	struct ethdev *dev = (struct ethdev *)port;
	uint64_t bytes = 0;
	uint16_t sent;

	if (!dev->queued_count)
		return;
	for (uint32_t i = 0; i < dev->queued_count; i++)
		bytes += dev->queued[i]->pkt_len;
	sent = rte_eth_tx_burst(dev->id, 0, dev->queued, (uint16_t)dev->queued_count);
	counter_add(port->page, GZ_COUNT_tx_packets, sent);
	for (uint32_t i = sent; i < dev->queued_count; i++) {
		bytes -= dev->queued[i]->pkt_len;
		rte_pktmbuf_free(dev->queued[i]);
	}
	counter_add(port->page, GZ_COUNT_tx_bytes, bytes);
	counter_add(port->page, GZ_COUNT_tx_dropped, dev->queued_count - sent);
	dev->queued_count = 0;
}

/* TCP's checksum, which lwIP leaves to the port. Frames are ours, so the headers are as lwIP makes them. */
static void finish_tcp(const struct ethdev *dev, struct rte_mbuf *m)
{
	uint8_t *frame = rte_pktmbuf_mtod(m, uint8_t *), *ip = frame + RTE_ETHER_HDR_LEN;
	uint32_t type = (uint32_t)frame[12] << 8 | frame[13], l3, l4_len;
	struct tcp_hdr *tcp;
	uint8_t protocol;

	if (m->pkt_len < RTE_ETHER_HDR_LEN + 20 || (type != RTE_ETHER_TYPE_IPV4 && type != RTE_ETHER_TYPE_IPV6))
		return;
	if (type == RTE_ETHER_TYPE_IPV6) {
		l3 = 40;
		protocol = ip[6];
	} else {
		l3 = (ip[0] & 15u) * 4;
		protocol = ip[9];
		if ((ip[6] & 0x3f) || ip[7])
			return; /* a fragment */
	}
	if (protocol != IPPROTO_TCP || m->pkt_len < RTE_ETHER_HDR_LEN + l3 + TCP_HLEN)
		return;
	tcp = (struct tcp_hdr *)(ip + l3);
	l4_len = m->pkt_len - RTE_ETHER_HDR_LEN - l3;
	tcp->chksum = checksum_pseudo(ip, IPPROTO_TCP, l4_len);
	if (dev->tcp_offload) {
		m->l2_len = RTE_ETHER_HDR_LEN;
		m->l3_len = l3 & 0x1ff;
		m->l4_len = TCPH_HDRLEN_BYTES(tcp);
		m->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM |
		               (type == RTE_ETHER_TYPE_IPV6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4);
		return;
	}
	tcp->chksum = (u16_t)~lwip_checksum(tcp, (int)l4_len);
}

static void ethdev_send(struct port *port, struct pbuf *frame)
{
	struct ethdev *dev = (struct ethdev *)port;
	struct rte_mbuf *m = rte_pktmbuf_alloc(port->pool);
	char *to = m ? rte_pktmbuf_append(m, frame->tot_len) : NULL;

	if (!to) {
		counter_add(port->page, GZ_COUNT_tx_dropped, 1);
		counter_add(port->page, GZ_COUNT_alloc_failed, !m);
		rte_pktmbuf_free(m);
		return;
	}
	for (const struct pbuf *p = frame; p; p = p->next) {
		memcpy(to, p->payload, p->len);
		to += p->len;
	}
	finish_tcp(dev, m);
	dev->queued[dev->queued_count++] = m;
	if (dev->queued_count == BURST)
		ethdev_flush(port);
}

static const struct port_ops ethdev_ops = { .receive = ethdev_receive, .send = ethdev_send, .flush = ethdev_flush };

/* The process's socket of a family: the drivers that sit on one do not tell its number. -1: none. */
static int socket_of_family(int family)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int found = -1;

	if (!dir)
		return -1;
	while ((entry = readdir(dir)) != NULL && found < 0) {
		int fd = atoi(entry->d_name), domain = 0;
		socklen_t len = sizeof(domain);

		if (entry->d_name[0] != '.' && !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) && domain == family)
			found = fd;
	}
	closedir(dir);
	return found;
}

/* A device on the PCI bus reads and writes the packets itself: the pool must be memory that DPDK has mapped for it. */
static int check_memory(const struct rte_eth_dev_info *info, struct rte_mempool *pool)
{
	const struct rte_bus *bus = info->device ? rte_dev_bus(info->device) : NULL;

	if (!bus || strcmp(rte_bus_name(bus), "pci") || mempool_is_dpdks(pool))
		return 0;
	log_warn("port: the packet buffers are not in memory that is mapped for %s", rte_dev_name(info->device));
	return -EFAULT;
}

static int configure(struct ethdev *dev, const struct gz_worker_plan *plan, const struct rte_eth_dev_info *info)
{
	struct rte_eth_conf conf = { .rxmode.mtu = dev->port.mtu };
	uint16_t rx = (uint16_t)plan->rx_queue_size, tx = (uint16_t)plan->tx_queue_size;
	int err;

	conf.rxmode.offloads = info->rx_offload_capa & (RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM);
	conf.txmode.offloads = info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
	dev->tcp_offload = conf.txmode.offloads != 0;
	err = rte_eth_dev_configure(dev->id, 1, 1, &conf);
	if (!err)
		err = rte_eth_dev_adjust_nb_rx_tx_desc(dev->id, &rx, &tx);
	if (!err)
		err = rte_eth_rx_queue_setup(dev->id, 0, rx, SOCKET_ID_ANY, NULL, dev->port.pool);
	if (!err)
		err = rte_eth_tx_queue_setup(dev->id, 0, tx, SOCKET_ID_ANY, NULL);
	if (!err)
		err = rte_eth_dev_start(dev->id);
	return err;
}

/* The group's hardware address if it has one: the device takes it, or hears everything. Else the device's own. */
static int choose_mac(struct ethdev *dev, const struct gz_group_page *group)
{
	static const uint8_t zero[6];
	struct rte_ether_addr own;
	int err = rte_eth_macaddr_get(dev->id, &own);

	if (err)
		return err;
	memcpy(dev->port.mac, own.addr_bytes, 6);
	if (!memcmp(group->mac, zero, 6) || !memcmp(group->mac, own.addr_bytes, 6))
		return 0;
	memcpy(dev->port.mac, group->mac, 6);
	return rte_eth_promiscuous_enable(dev->id);
}

int port_ethdev_open(const struct port_setup *setup, struct port **port)
{
	struct ethdev *dev = calloc(1, sizeof(*dev));
	struct rte_eth_dev_info info;
	int err;

	if (!dev)
		return -ENOMEM;
	dev->id = (uint16_t)rte_eth_find_next(0);
	err = -ENODEV;
	if (dev->id >= RTE_MAX_ETHPORTS)
		goto err_free_dev;
	dev->port.ops = &ethdev_ops;
	dev->port.page = setup->page;
	dev->now_ns = setup->now_ns;
	dev->port.pool = setup->pool;
	dev->port.mtu = (uint16_t)setup->group->mtu;
	err = rte_eth_dev_info_get(dev->id, &info);
	if (!err)
		err = check_memory(&info, setup->pool);
	if (!err)
		err = configure(dev, setup->plan, &info);
	if (!err)
		err = choose_mac(dev, setup->group);
	if (err)
		goto err_free_dev;
	dev->port.wait_fd = -1;
	if (strstr(info.driver_name, "af_xdp"))
		dev->port.wait_fd = socket_of_family(AF_XDP);
	else if (strstr(info.driver_name, "af_packet"))
		dev->port.wait_fd = socket_of_family(AF_PACKET);
	dev->gap = dev->port.wait_fd >= 0;
	dev->port.always_poll = dev->port.wait_fd < 0;
	log_info("port %s by %s, checksums by %s, %s", setup->group->device, info.driver_name,
	         dev->tcp_offload ? "the device" : "us",
	         dev->port.always_poll ? "no descriptor to sleep on" : "sleeps on its descriptor");
	*port = &dev->port;
	return 0;

err_free_dev:
	free(dev);
	return err;
}
