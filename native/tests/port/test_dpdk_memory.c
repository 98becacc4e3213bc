/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Where packet memory comes from, and that a pool which no PCI device may use is known as one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <rte_mbuf.h>
#include <rte_mempool.h>

#include <gazelle/group_page.h>

#include "port/eal.h"
#include "port/mempool.h"

#define MIB (1ull << 20)

static void a_port_without_dma_takes_ordinary_pages_if_it_must(void **state)
{
	assert_int_equal(eal_choose_memory(false, 80 * MIB, 90 * MIB), EAL_HUGEPAGES);
	assert_int_equal(eal_choose_memory(false, 80 * MIB, 89 * MIB), EAL_ORDINARY_PAGES);
	assert_int_equal(eal_choose_memory(false, 80 * MIB, 0), EAL_ORDINARY_PAGES);
}

static void a_pci_port_never_does(void **state)
{
	assert_int_equal(eal_choose_memory(true, 80 * MIB, 80 * MIB), EAL_HUGEPAGES);
	assert_int_equal(eal_choose_memory(true, 80 * MIB, 80 * MIB - 1), EAL_NO_MEMORY);
	assert_int_equal(eal_choose_memory(true, 80 * MIB, 0), EAL_NO_MEMORY);
}

static struct gz_group_page group = { .driver = GZ_DRIVER_ETHDEV, .mtu = 1500, .instance = "memory-test" };

static const struct gz_worker_plan *worker(const char *port_args, uint32_t mbufs)
{
	struct gz_worker_plan *plan = &group.workers[0];

	*plan = (struct gz_worker_plan){ .cpu = -1, .numa = -1, .mbufs = mbufs, .name = "memory-test", .pool = "rxtx" };
	snprintf(plan->port_args, sizeof(plan->port_args), "%s", port_args);
	return plan;
}

static int open_dpdk(const char *port_args)
{
	const struct gz_worker_plan *plan = worker(port_args, UINT32_MAX);

	return eal_open(&group, plan, mempool_bytes(&group, plan));
}

/* More than any machine has free. */
static void a_pci_worker_that_cannot_have_hugepages_does_not_start(void **state)
{
	assert_int_equal(open_dpdk("-a 0000:03:00.0"), -ENOMEM);
	assert_int_equal(open_dpdk("--allow=0000:03:00.0"), -ENOMEM);
}

static void a_pool_of_our_own_is_no_devices(void **state)
{
	struct rte_mempool *ours = NULL, *dpdks;

	/* Too large for any machine's hugepages, so DPDK starts without; the pool itself is small. */
	assert_int_equal(open_dpdk(""), 0);
	assert_true(eal_without_hugepages());
	assert_int_equal(mempool_open(&group, worker("", 1024), &ours), 0);
	assert_false(mempool_is_dpdks(ours));

	dpdks = rte_pktmbuf_pool_create("dpdks", 512, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	assert_non_null(dpdks);
	assert_true(mempool_is_dpdks(dpdks));
	rte_mempool_free(dpdks);
	rte_mempool_free(ours);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_port_without_dma_takes_ordinary_pages_if_it_must),
		cmocka_unit_test(a_pci_port_never_does),
		cmocka_unit_test(a_pci_worker_that_cannot_have_hugepages_does_not_start),
		cmocka_unit_test(a_pool_of_our_own_is_no_devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
