/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "port/mempool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_mempool.h>

#include <gazelle/group_page.h>

#include "port/eal.h"

#define PRIVATE_SIZE ((sizeof(struct mbuf_private) + RTE_MBUF_PRIV_ALIGN - 1) & ~(size_t)(RTE_MBUF_PRIV_ALIGN - 1))
#define CACHE 256u

/* A frame fits one mbuf where the port does not chain them; the tap chains super-frames of any MTU. */
static uint16_t data_room(const struct gz_group_page *group)
{
	uint32_t frame = group->mtu + RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN + 2 * RTE_VLAN_HLEN;

	if (group->driver != GZ_DRIVER_ETHDEV || frame < RTE_MBUF_DEFAULT_DATAROOM)
		frame = RTE_MBUF_DEFAULT_DATAROOM;
	frame += RTE_PKTMBUF_HEADROOM;
	return frame < UINT16_MAX ? (uint16_t)frame : UINT16_MAX;
}

static uint32_t element_size(const struct gz_group_page *group)
{
	return (uint32_t)(sizeof(struct rte_mbuf) + PRIVATE_SIZE + data_room(group));
}

uint64_t mempool_bytes(const struct gz_group_page *group, const struct gz_worker_plan *plan)
{
	struct rte_mempool_objsz size;

	rte_mempool_calc_obj_size(element_size(group), 0, &size);
	return (uint64_t)size.total_size * plan->mbufs;
}

static void unmap(struct rte_mempool_memhdr *memory, void *opaque)
{
	munmap(memory->addr, memory->len);
}

/* One mapping of our own; without IOVA_CONTIG an mbuf may cross a page. Pages are touched when an mbuf is first written. */
static int populate_own(struct rte_mempool *pool, size_t element)
{
	size_t bytes = (element * pool->size + RTE_CACHE_LINE_SIZE + 4095) & ~(size_t)4095;
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int n;

	if (memory == MAP_FAILED)
		return -errno;
	(void)madvise(memory, bytes, MADV_HUGEPAGE);
	n = rte_mempool_populate_iova(pool, memory, (rte_iova_t)(uintptr_t)memory, bytes, unmap, NULL);
	if (n == (int)pool->size)
		return 0;
	if (n <= 0)
		munmap(memory, bytes);
	return n < 0 ? n : -ENOMEM;
}

int mempool_open(const struct gz_group_page *group, const struct gz_worker_plan *plan, struct rte_mempool **out)
{
	struct rte_pktmbuf_pool_private private = { .mbuf_data_room_size = data_room(group),
		                                    .mbuf_priv_size = PRIVATE_SIZE };
	uint32_t cache = plan->mbufs / 8 < CACHE ? plan->mbufs / 8 : CACHE;
	struct rte_mempool_objsz size;
	struct rte_mempool *pool;
	int err;

	pool = rte_mempool_create_empty(plan->pool, plan->mbufs, element_size(group), cache, sizeof(private),
	                                plan->numa >= 0 ? plan->numa : SOCKET_ID_ANY,
	                                eal_without_hugepages() ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0);
	if (!pool)
		return rte_errno ? -rte_errno : -ENOMEM;
	err = rte_mempool_set_ops_byname(pool, "ring_sp_sc", NULL);
	if (err)
		goto err_free_pool;
	rte_pktmbuf_pool_init(pool, &private);
	rte_mempool_calc_obj_size(element_size(group), 0, &size);
	err = eal_without_hugepages() ? populate_own(pool, size.total_size) : rte_mempool_populate_default(pool);
	if (err < 0)
		goto err_free_pool;
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	*out = pool;
	return 0;

err_free_pool:
	rte_mempool_free(pool);
	return err;
}

static void look_at_chunk(struct rte_mempool *pool, void *all, struct rte_mempool_memhdr *memory, unsigned int index)
{
	if (!rte_mem_virt2memseg(memory->addr, NULL) || memory->iova == RTE_BAD_IOVA)
		*(bool *)all = false;
}

bool mempool_is_dpdks(struct rte_mempool *pool)
{
	bool all = pool->nb_mem_chunks > 0;

	rte_mempool_mem_iter(pool, look_at_chunk, &all);
	return all;
}
