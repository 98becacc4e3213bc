/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "port/eal.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>

#include <gazelle/group_page.h>

#include "core/log.h"

#define ARGS_MAX 32
#define CONTROL_MB 24u /* what DPDK itself needs beside the mbuf pool: pool header and caches, port structures */

static bool no_huge;

bool eal_without_hugepages(void)
{
	return no_huge;
}

/* Free 2 MB pages of a node, or of the host if the node is unknown. */
static uint64_t free_hugepage_bytes(int32_t numa)
{
	char path[96];
	unsigned long pages = 0;
	FILE *file;

	if (numa >= 0)
		snprintf(path, sizeof(path),
		         "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/free_hugepages", numa);
	else
		snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (fscanf(file, "%lu", &pages) != 1)
		pages = 0;
	fclose(file);
	return (uint64_t)pages << 21;
}

enum eal_memory eal_choose_memory(bool pci, uint64_t need, uint64_t free_huge)
{
	if (pci)
		return free_huge >= need ? EAL_HUGEPAGES : EAL_NO_MEMORY;
	/* With an eighth to spare, because DPDK does not start at all if it is short of one page. */
	return free_huge >= need + (need >> 3) ? EAL_HUGEPAGES : EAL_ORDINARY_PAGES;
}

/* True if the plan's EAL arguments hand PCI devices to DPDK. */
static bool allows_pci(const char *args)
{
	return strstr(args, "-a") || strstr(args, "--allow");
}

int eal_open(const struct gz_group_page *group, const struct gz_worker_plan *plan, uint64_t packet_bytes)
{
	char prefix[64], lcores[32], memory[16], args[sizeof(plan->port_args)];
	char *argv[ARGS_MAX] = { (char *)plan->name };
	uint64_t need = packet_bytes + ((uint64_t)CONTROL_MB << 20), free_huge = free_hugepage_bytes(plan->numa);
	char *rest = args, *word;
	int argc = 1, err;
	bool pci;

	memcpy(args, plan->port_args, sizeof(args));
	if (group->driver != GZ_DRIVER_ETHDEV)
		args[0] = 0;
	pci = allows_pci(args);
	switch (eal_choose_memory(pci, need, free_huge)) {
	case EAL_HUGEPAGES:
		no_huge = false;
		break;
	case EAL_ORDINARY_PAGES:
		no_huge = true;
		break;
	case EAL_NO_MEMORY:
		log_warn("a PCI port needs %u MiB of hugepages, %u MiB are free on node %d", (uint32_t)(need >> 20) + 1,
		         (uint32_t)(free_huge >> 20), plan->numa);
		return -ENOMEM;
	}
	snprintf(prefix, sizeof(prefix), "--file-prefix=gz-%s-%u", group->instance, plan->queue_id);
	snprintf(lcores, sizeof(lcores), "--lcores=0@%d", plan->cpu >= 0 ? plan->cpu : sched_getcpu());
	snprintf(memory, sizeof(memory), "%u", no_huge ? CONTROL_MB : (uint32_t)(need >> 20) + 1);
	argv[argc++] = prefix;
	argv[argc++] = lcores;
	argv[argc++] = (char *)"--no-telemetry";
	argv[argc++] = (char *)"--log-level=3";
	argv[argc++] = (char *)"-m";
	argv[argc++] = memory;
	if (no_huge) {
		argv[argc++] = (char *)"--no-huge";
		argv[argc++] = (char *)"--no-shconf";
	} else {
		argv[argc++] = (char *)"--in-memory";
	}
	if (!pci)
		argv[argc++] = (char *)"--no-pci";
	while ((word = strsep(&rest, " ")) != NULL && argc < ARGS_MAX - 1)
		if (*word)
			argv[argc++] = word;
	argv[argc] = NULL;
	err = rte_eal_init(argc, argv);
	if (err < 0) {
		log_warn("DPDK does not start: %s", rte_strerror(rte_errno));
		return rte_errno ? -rte_errno : -EIO;
	}
	return 0;
}
