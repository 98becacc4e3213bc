/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "samehost/served.h"

#include <string.h>

#include <gazelle/address.h>
#include <gazelle/worker_page.h>

bool served_here(const struct endpoint *to)
{
	return gz_addr_is_loopback(to->addr) || route_is_stack(to);
}

/* A loopback address is that of the caller's namespace, the stack's is everybody's. */
bool served_reached(uint64_t netns, uint64_t from, const struct endpoint *to)
{
	return netns == from || !gz_addr_is_loopback(to->addr);
}

static bool line_serves(const struct gz_listener *line, uint64_t netns, const struct endpoint *to)
{
	/* The acquire pairs with the worker's release of the line: the rest of it is written. */
	return gz_load_acquire(&line->port_owner) >> 16 == to->port && to->port &&
	       gz_addr_serves(line->addr, line->v6only, to->addr) && served_reached(line->netns, netns, to);
}

bool served_find(uint64_t netns, const struct endpoint *to, struct served *found)
{
	WORKER_EACH(a, i)
	{
		if (!a->channel)
			continue;
		for (uint32_t l = 0; l < GZ_LISTENERS_MAX; l++) {
			const struct gz_listener *line = &a->page->listeners[l];

			if (!line_serves(line, netns, to))
				continue;
			*found = (struct served){ .port = to->port, .worker = i, .line = l, .at = a->serial };
			memcpy(found->addr, to->addr, 16);
			found->port_owner = gz_load(&line->port_owner);
			found->program = gz_load(&line->program);
			found->netns = line->netns;
			return true;
		}
	}
	return false;
}

bool served_any(uint64_t netns, const struct endpoint *to)
{
	struct served found;
	struct endpoint here = *to;

	if (gz_addr_is_any(here.addr)) { /* a listener on any address, asking about itself */
		if (gz_addr_is4(here.addr))
			here.addr[12] = 127;
		here.addr[15] = 1;
	}
	return served_here(&here) && served_find(netns, &here, &found);
}

/* The line of `served`, or NULL while its worker is away; pairs go on without. */
static const struct gz_listener *line_of(const struct served *served)
{
	struct attachment *a = gz_load_acquire(&shim.attachments[served->worker]);

	return a && a->serial == served->at ? &a->page->listeners[served->line] : NULL;
}

bool served_stands(const struct served *served)
{
	const struct gz_listener *line = line_of(served);

	return !line ||
	       (gz_load_acquire(&line->port_owner) == served->port_owner && gz_load(&line->program) == served->program);
}

/* A backlog is counted as the kernel counts it: one more than that may wait. */
uint32_t served_backlog(const struct served *served)
{
	const struct gz_listener *line = line_of(served);

	return line ? gz_load(&line->backlog) : GZ_PAIR_SOCKS;
}
