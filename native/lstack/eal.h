/* SPDX-License-Identifier: MulanPSL-2.0 */
/* DPDK's environment: each worker is a primary of its own, with its own file prefix, and none of DPDK's side shows. */
#ifndef LSTACK_EAL_H
#define LSTACK_EAL_H

#include <stdbool.h>
#include <stdint.h>

struct protocol_stack;

/*
 * Starts DPDK for this worker's plan: its CPU, --no-huge unless enough hugepages are free on its node, the port's arguments.
 * 0 or -errno. Needs the privileges the port needs.
 */
int eal_open(struct protocol_stack *stack);

/* True if the mbuf pool must live in memory of our own (no hugepages: DPDK would spend a 4 KB page per mbuf). */
bool eal_without_hugepages(void);

#endif
