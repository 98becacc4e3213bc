/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "net/local_port.h"

#include <gazelle/atomic.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "core/worker.h"
#include "net/rss.h"
#include "tcp/isn.h"
#include "tcp/tcp_table.h"

#define PORT_FIRST 32768u /* as Linux's ip_local_port_range */
#define PORT_LAST 60999u

void local_port_open(struct protocol_stack *stack)
{
	stack->next_port = lwip_random() % (PORT_LAST - PORT_FIRST + 1);
}

/* True if a worker of the instance has published a listener on this port. */
static bool listener_published(const struct protocol_stack *stack, uint16_t port)
{
	for (uint32_t q = 0; q < stack->group->tot_queue_num; q++) {
		const struct gz_worker_page *page = stack->pages[q];

		for (uint32_t i = 0; page && i < GZ_LISTENERS_MAX; i++)
			if (gz_load(&page->listeners[i].port_owner) >> 16 == port)
				return true;
	}
	return false;
}

uint16_t local_port_pick(struct protocol_stack *stack, const ip_addr_t *local, const ip_addr_t *remote, uint16_t remote_port)
{
	uint32_t range = PORT_LAST - PORT_FIRST + 1, home = stack->group->split ? stack->queue_id & ~1u : stack->queue_id;

	/* Once for ports whose replies come to us by themselves, once for any: the connection table would find those, too. */
	for (int any = 0; any < 2; any++) {
		for (uint32_t i = 0; i < range; i++) {
			uint16_t port = (uint16_t)(PORT_FIRST + (stack->next_port + i) % range);
			uint32_t hash = any ? 0 : rss_hash(stack->rss, remote, remote_port, local, port);

			if (!any && stack->group->reta[hash % GZ_RETA_SIZE] != home)
				continue;
			if (tcp_table_has(local, port, remote, remote_port) &&
			    !tcp_table_reuse(local, port, remote, remote_port))
				continue;
			if (listener_published(stack, port))
				continue;
			stack->next_port = (stack->next_port + i + 1) % range;
			return port;
		}
	}
	return 0;
}
