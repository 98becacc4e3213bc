/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What a worker tells of its sockets on its control socket (control.h), to who may attach: a user hears of those of his own
 * programs, root of all. Each CONNECTIONS of the asker is answered by one message of the same kind with `number` records behind
 * it; `cursor` says where the next CONNECTIONS goes on, 0 is the start and GZ_CONNECTIONS_END the end. An answer takes the worker
 * 50 microseconds at most, and there is at most one in a turn of its loop: another asker gets one without records meanwhile.
 */
#ifndef GAZELLE_CONNECTIONS_H
#define GAZELLE_CONNECTIONS_H

#include <stdint.h>

#define GZ_CONNECTIONS_END UINT64_MAX
#define GZ_CONNECTIONS_AT_ONCE 64u

enum gz_connection_kind { GZ_CONNECTION_TCP = 1, GZ_CONNECTION_LISTENER = 2, GZ_CONNECTION_UDP = 3 };

/* Of TCP, by the numbers that lwIP has for them. */
enum gz_connection_state {
	GZ_STATE_SYN_SENT = 2,
	GZ_STATE_SYN_RCVD = 3,
	GZ_STATE_ESTABLISHED = 4,
	GZ_STATE_FIN_WAIT_1 = 5,
	GZ_STATE_FIN_WAIT_2 = 6,
	GZ_STATE_CLOSE_WAIT = 7,
	GZ_STATE_CLOSING = 8,
	GZ_STATE_LAST_ACK = 9,
	GZ_STATE_TIME_WAIT = 10
};

#define GZ_CONNECTION_UNACCEPTED 1u /* it waits in its listener's queue; `pid` is of who listens */
#define GZ_CONNECTION_ORPHAN 2u     /* no program holds it any more: TCP finishes it */

struct gz_connection {
	uint8_t kind;  /* enum gz_connection_kind */
	uint8_t state; /* enum gz_connection_state; 0: not of TCP */
	uint8_t flags;
	uint8_t v6;
	uint16_t local_port, peer_port;
	uint8_t local_addr[16], peer_addr[16];
	uint32_t pid; /* one of the processes that hold it; 0: none */
	uint32_t uid;
	/* Bytes in the FIFO towards the program, and behind it; room for so many. Of a listener: connections that wait, backlog. */
	uint32_t rx_queued, rx_room;
	uint32_t tx_queued, tx_room; /* towards the network: written and not acknowledged */
	uint32_t send_window, receive_window, congestion_window, slow_start_threshold;
	uint32_t mss;
	uint32_t rtt_us, rto_ms;
	uint32_t segments_in, segments_out, retransmits;
	uint64_t bytes_received, bytes_acked;
	uint64_t age_ms, idle_ms; /* idle: since a segment came, at a resolution of 50 ms */
};
_Static_assert(sizeof(struct gz_connection) == 136, "no holes");

#endif
