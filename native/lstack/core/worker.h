/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The worker: one process, one thread, one NIC queue, one lwIP. Everything hangs on one struct protocol_stack.
 *
 * A packet becomes bytes in an application by this road; each stop is the file of that name:
 *   port_tap.c / port_ethdev.c   a burst of mbufs from the queue
 *   steer.c                      whose flow is it? ours, or by handover.c to another worker
 *   tcp_table.c                  O(1) demultiplexing: lwIP's lists are pointed at the flow's bucket
 *   netif.c                      mbuf -> pbuf without copy, into lwIP
 *   stream_receive.c             lwIP's callback: bytes into the socket's FIFO (arena.c)
 *   app.c                        the bell of each attached process that holds the socket, and its wake-up
 * and back: requests.c takes the rung sockets, stream_send.c hands FIFO bytes to lwIP by reference, netif.c gives frames to
 * the port.
 */
#ifndef LSTACK_WORKER_H
#define LSTACK_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "core/counters.h"

struct port;
struct apps;
struct handover;
struct rss;

struct protocol_stack {
	const struct gz_group_page *group; /* read-only mapping */
	const struct gz_worker_plan *plan; /* our row of group->workers */
	uint32_t queue_id;
	uint32_t process_index;
	enum gz_role role;
	struct gz_worker_page *page;                        /* ours; what the world sees of us */
	const struct gz_worker_page *pages[GZ_WORKERS_MAX]; /* all workers of the instance by queue_id; NULL until seen */
	struct port *port;
	struct rss *rss;
	struct handover *handover;
	struct apps *apps;
	int epoll_fd;            /* what an idle worker sleeps on */
	uint32_t process_groups; /* [[process]] tables of the plan */
	uint32_t next_port;      /* local_port.c goes on here */
	uint64_t started_ns;
	uint64_t now_ns;    /* CLOCK_MONOTONIC, read once per turn */
	uint64_t timers_ns; /* when TCP's timers were last looked at */
	uint32_t sleeps;    /* numbers them */
	bool readers_behind; /* datagrams were dropped in this turn: the program that should read them may be waiting for this CPU */
	bool tracing;  /* the administrator wants to know where the time goes (trace.h) */
	bool draining; /* no new connections: SIGTERM (flush, then _exit), or GZ_MESSAGE_DRAIN */
};

static inline void worker_count(struct protocol_stack *stack, enum gz_counter counter, uint64_t n)
{
	counter_add(stack->page, counter, n);
}

static inline void worker_gauge(struct protocol_stack *stack, enum gz_counter counter, uint64_t value)
{
	counter_set(stack->page, counter, value);
}

#endif
