/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A port: where frames come from and go to. The seed's dev_ops: receive a burst, queue a frame, flush, the descriptor to
 * sleep on, the offloads offered. Two kinds: one queue of a multi-queue tap (port_tap.c) and any DPDK device
 * (port_ethdev.c). Without a port (driver none) everything a worker sends is dropped but what it sends to itself.
 */
#ifndef LSTACK_PORT_H
#define LSTACK_PORT_H

#include <stdbool.h>
#include <stdint.h>

struct gz_group_page;
struct gz_worker_page;
struct gz_worker_plan;
struct pbuf;
struct port;
struct rte_mbuf;
struct rte_mempool;

struct port_ops {
	/* Up to n frames, each an mbuf chain, ol_flags saying what is known of its checksum. Returns how many. */
	uint16_t (*receive)(struct port *port, struct rte_mbuf **frames, uint16_t n);
	/* Queues a frame (Ethernet header first). Refers to the pbuf chain until flush, which is in the same turn. */
	void (*send)(struct port *port, struct pbuf *frame);
	void (*flush)(struct port *port);
};

/* What a port is opened with. */
struct port_setup {
	const struct gz_group_page *group;
	const struct gz_worker_plan *plan;
	struct gz_worker_page *page;
	const uint64_t *now_ns; /* the time of the turn */
	struct rte_mempool *pool;
};

struct port {
	const struct port_ops *ops;
	struct gz_worker_page *page; /* for its counters */
	struct rte_mempool *pool;
	uint8_t mac[6];
	uint16_t mtu;
	int wait_fd;      /* readable when frames wait; -1: none */
	bool always_poll; /* no descriptor to sleep on: poll every millisecond */
};

/* Open the port of the group's driver for this worker's queue: 0 and *port, or -errno. With privileges. */
int port_tap_open(const struct port_setup *setup, struct port **port);
int port_ethdev_open(const struct port_setup *setup, struct port **port);
int port_none_open(const struct port_setup *setup, struct port **port);

#endif
