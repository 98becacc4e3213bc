/* SPDX-License-Identifier: MulanPSL-2.0 */
/* DPDK as tests start it: without huge pages, devices and files that outlive them. */
#ifndef TESTS_EAL_KIT_H
#define TESTS_EAL_KIT_H

#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include <rte_eal.h>

/* False: DPDK does not start here. */
static inline bool eal_kit_start(const char *program)
{
	char name[64], prefix[48],
		*args[] = { name,
		            (char *)"--no-huge",
		            (char *)"-m",
		            (char *)"24",
		            (char *)"--no-pci",
		            (char *)"--no-telemetry",
		            (char *)"--no-shconf",
		            (char *)"--log-level=3",
		            prefix };

	snprintf(name, sizeof(name), "%s", program);
	snprintf(prefix, sizeof(prefix), "--file-prefix=gz-test-%d", (int)getpid());
	return rte_eal_init((int)(sizeof(args) / sizeof(args[0])), args) >= 0;
}

#endif
