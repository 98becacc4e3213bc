/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Frames as a peer on the link of a worker (worker_kit.h) sends them, and their checksums made right. */
#ifndef FUZZ_PACKET_H
#define FUZZ_PACKET_H

#include <stdbool.h>
#include <stdint.h>

#include "../tests/net/wire_bytes.h"

#define PACKET_PEERS 4u /* 10.0.0.16 to .19 and fd00:91::10 to ::13, all at one hardware address */
#define PACKET_L4(v6) ((v6) ? 54u : 34u)

/* Ethernet and IP headers from a peer to the worker before the `bytes` at PACKET_L4(v6). The length of the frame. */
uint32_t packet_head(uint8_t *frame, bool v6, uint32_t peer, uint8_t protocol, uint32_t bytes);

/*
 * The checksums of whatever this frame says it is, as far as it says it: IP, then TCP, UDP, ICMP or ICMPv6 behind any options
 * and extension headers. Not of fragments.
 */
void packet_fix(uint8_t *frame, uint32_t bytes);

/* An ARP request, or a neighbour solicitation, by which the worker learns of the peer. Its length. */
uint32_t packet_arp(uint8_t *frame, uint32_t peer);
uint32_t packet_solicitation(uint8_t *frame, uint32_t peer);

/* The addresses of the ABI. */
void packet_peer(bool v6, uint32_t peer, uint8_t addr[16]);

#endif
