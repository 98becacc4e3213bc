/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * lwIP walks one list of connections for every segment. Here the connections are spread over buckets by a hash of their
 * 4-tuple, and lwIP's list heads (active, time-wait, bound) are pointed at one bucket while it works: enter, call lwIP,
 * leave. Every tcp_* call of the worker stands between the two. Sections do not nest: inside an lwIP callback the bucket
 * of that connection is already entered, and no other connection may be touched.
 * Listeners are in a list for each port, and lwIP's list head is pointed at one of them in the same way.
 */
#ifndef LSTACK_TCP_TABLE_H
#define LSTACK_TCP_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include <lwip/ip_addr.h>

struct tcp_pcb;
struct tcp_pcb_listen;

/* Bucket of a connection as lwIP sees it (local = ours). Pure. */
uint32_t tcp_table_bucket(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote, uint16_t remote_port);

void tcp_table_enter(uint32_t bucket);
void tcp_table_leave(void);

/* True if such a connection (time-wait included) exists here. Not between enter and leave. */
bool tcp_table_has(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote, uint16_t remote_port);

/* lwIP sees the listeners of this port from now on. Before it gets a segment to the port, or a listener comes or goes. */
void tcp_table_listeners(uint16_t port);

/* True if a listener here takes a SYN to this address and port. */
bool tcp_table_listens(const ip_addr_t *local, uint16_t local_port);

/* Allocates the table. Once, before lwIP sees a packet. 0 or -errno. */
int tcp_table_open(void);

/* The time of this turn, before anything enters a bucket: lwIP's tick counter follows it. */
void tcp_table_clock(uint64_t now_ns);

/* Like tcp_table_has, with the bucket at hand. */
bool tcp_table_has_in(uint32_t bucket, const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote,
                      uint16_t remote_port);

/* A TIME-WAIT connection that may be given up for a new one of ours (RFC 6191: at least a second old): removed, true. */
bool tcp_table_reuse(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote, uint16_t remote_port);

/* Calls fn for each connection that its SYN has not been answered of, in its bucket; fn may end it. */
void tcp_table_connecting(void (*fn)(struct tcp_pcb *pcb, void *arg), void *arg);

/* The first bucket from `from` on that has a connection, for who looks at all of them; UINT32_MAX: none. */
uint32_t tcp_table_next(uint32_t from);
/* What is in it. Not between enter and leave. */
const struct tcp_pcb *tcp_table_see(uint32_t bucket, bool time_wait);
/* The listeners of a port. */
const struct tcp_pcb_listen *tcp_table_see_listeners(uint16_t port);

/* Connections in the table, without and with time-wait. Walks it: for tests and diagnostics. */
uint32_t tcp_table_count(bool time_wait);

/* Runs lwIP's TCP timers that are due; cost proportional to connections with something outstanding, not to all. */
void tcp_table_timers(uint64_t now_ns);

/* Nanoseconds until the next timer could have work; UINT64_MAX: none. */
uint64_t tcp_table_next_timer(uint64_t now_ns);

#endif
