/* SPDX-License-Identifier: MulanPSL-2.0 */
/* DPDK's environment: each worker is a primary of its own, with its own file prefix, and none of DPDK's side shows. */
#ifndef LSTACK_EAL_H
#define LSTACK_EAL_H

#include <stdbool.h>
#include <stdint.h>

struct gz_group_page;
struct gz_worker_plan;

/* Where a worker's packet memory comes from. */
enum eal_memory {
	EAL_HUGEPAGES,
	EAL_ORDINARY_PAGES, /* DPDK by --no-huge, the mbuf pool in a mapping of our own */
	EAL_NO_MEMORY,      /* the worker must not start */
};

/*
 * Decides, from the bytes a worker needs and the bytes of free hugepages on its node. A PCI device reads and writes packet
 * memory by itself and reaches only what DPDK has mapped for it: for such a port hugepages are never replaced. Pure.
 */
enum eal_memory eal_choose_memory(bool pci, uint64_t need, uint64_t free_huge);

/*
 * Starts DPDK for this worker's plan: its CPU, its memory (eal_choose_memory; `packet_bytes` for mbufs), the port's arguments. 0 or -errno; -ENOMEM, with
 * a line in the log, if a PCI port cannot have its hugepages. Needs the privileges the port needs.
 */
int eal_open(const struct gz_group_page *group, const struct gz_worker_plan *plan, uint64_t packet_bytes);

/* True if the mbuf pool must live in memory of our own (no hugepages: DPDK would spend a 4 KB page per mbuf). */
bool eal_without_hugepages(void);

#endif
