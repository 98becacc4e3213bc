/* SPDX-License-Identifier: MulanPSL-2.0 */
/* No port: the worker serves programs of this host only. */
#include <stdlib.h>
#include <errno.h>

#include <lwip/pbuf.h>

#include <gazelle/worker_page.h>

#include "port/port.h"
#include "core/worker.h"

static uint16_t none_receive(struct port *port, struct rte_mbuf **frames, uint16_t n)
{
	return 0;
}

static void none_send(struct port *port, struct pbuf *frame)
{
	worker_count(port->stack, GZ_COUNT_tx_dropped, 1);
}

static void none_flush(struct port *port)
{
}

int port_none_open(struct protocol_stack *stack, struct rte_mempool *pool, struct port **out)
{
	static const struct port_ops ops = { .receive = none_receive, .send = none_send, .flush = none_flush };
	struct port *port = calloc(1, sizeof(*port));

	if (!port)
		return -ENOMEM;
	port->ops = &ops;
	port->stack = stack;
	port->pool = pool;
	port->mtu = (uint16_t)stack->group->mtu;
	port->mac[0] = 2;
	port->mac[5] = 1;
	port->wait_fd = -1;
	*out = port;
	return 0;
}
