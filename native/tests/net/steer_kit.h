/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Worker 1 of three, for tests of steering. The other two are pages the test writes and processes that are the test itself, so
 * that they live and die as it says; what is handed to them is read from their rings.
 */
#ifndef TESTS_STEER_KIT_H
#define TESTS_STEER_KIT_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "core/worker.h"
#include "eal_kit.h"
#include "packet/frame.h"
#include "packet/packet_ring.h"
#include "port/port.h"

#define WORKERS 3u
#define SELF 1u
#define LISTENED 80
#define PEER 0x0100000au /* 10.0.0.1 */
#define HOST6 0xfd, 0x85, 0, 0x67, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2
#define PEER6 0xfd, 0x85, 0, 0x67, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1

struct steer_kit {
	struct protocol_stack stack;
	struct gz_group_page *group;
	struct gz_worker_page *others[WORKERS];
	struct packet_rings *theirs[WORKERS];
	struct port port;
	struct rte_mempool *pool;
	uint32_t sent, sent_rst; /* frames that left by the port */
	uint32_t told;           /* ICMP errors that the table of UDP ports was told */
	struct frame told_of;    /* the last of them */
};

extern struct steer_kit kit;

/* Setup and teardown of the group of tests, and setup of each test. */
int kit_start(void **state);
int kit_stop(void **state);
int kit_reset(void **state);

void kit_set_others(uint32_t state);

struct rte_mbuf *kit_frame(const void *bytes, uint32_t len);

/* A TCP segment to us, of 54 bytes; its length. */
uint32_t kit_make_tcp(uint8_t *f, uint32_t src_be, uint16_t sport, uint16_t dport, uint8_t flags);

/* The peer asks for our hardware address. */
void kit_make_arp(uint8_t f[42]);

/* An IPv6 frame to us with `len` bytes behind its header, which the caller fills. */
uint8_t *kit_make_ip6(uint8_t *f, uint8_t next, uint16_t len);
void kit_make_syn6(uint8_t *tcp, uint16_t sport);

/* Writes the checksum of what stands behind the header, at `at` of it. */
void kit_finish_ip6(uint8_t *f, uint8_t protocol, uint16_t len, uint32_t at);

/* A source port of the peer whose flow belongs to `owner`. */
uint16_t kit_sport(uint32_t owner, uint16_t dport);
uint16_t kit_sport6(uint32_t owner);

/* A segment of the peer comes from our port. */
void kit_input(uint16_t sport, uint16_t dport, uint8_t flags);

/* Worker `from` hands us a segment of the peer. */
void kit_hand_over(uint32_t from, uint32_t origin, uint8_t visits, uint16_t sport, uint16_t dport, uint8_t flags);

/* Takes the next record handed to worker `to`: its place on the chain, or -1 if there is none. */
int kit_handed_to(uint32_t to);

/* True if we have a connection with that port of the peer. */
bool kit_has(uint16_t sport, uint16_t dport);
bool kit_has6(uint16_t sport);

#endif
