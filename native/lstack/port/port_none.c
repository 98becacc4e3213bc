/* SPDX-License-Identifier: MulanPSL-2.0 */
/* No port: the worker serves programs of this host only. */
#include <stdlib.h>
#include <errno.h>

#include <lwip/pbuf.h>

#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "port/port.h"
#include "core/counters.h"

static uint16_t none_receive(struct port *port, struct rte_mbuf **frames, uint16_t n)
{
	return 0;
}

static void none_send(struct port *port, struct pbuf *frame)
{
	counter_add(port->page, GZ_COUNT_tx_dropped, 1);
}

static void none_flush(struct port *port)
{
}

int port_none_open(const struct port_setup *setup, struct port **out)
{
	static const struct port_ops ops = { .receive = none_receive, .send = none_send, .flush = none_flush };
	struct port *port = calloc(1, sizeof(*port));

	if (!port)
		return -ENOMEM;
	port->ops = &ops;
	port->page = setup->page;
	port->pool = setup->pool;
	port->mtu = (uint16_t)setup->group->mtu;
	port->mac[0] = 2;
	port->mac[5] = 1;
	port->wait_fd = -1;
	*out = port;
	return 0;
}
