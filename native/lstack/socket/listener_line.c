/* SPDX-License-Identifier: MulanPSL-2.0 */
/* One with listener: it is what a listener shows of itself. */
#include "socket/listener_line.h"

#include <stdbool.h>
#include <string.h>

#include <gazelle/atomic.h>
#include <gazelle/worker_page.h>

#include "arena/arena.h"
#include "arena/quota.h"
#include "core/worker.h"
#include "socket/conn.h"
#include "socket/listener.h"
#include "socket/sockets.h"
#include "socket/vouch.h"

const struct vouch *listener_vouch(const struct listener *listener)
{
	return listener->members->sock->vouch;
}

void listener_line_update(const struct listener *listener)
{
	struct gz_listener *line = &listener->sockets->stack->page->listeners[listener->page_slot];

	if (listener->page_slot == GZ_LISTENERS_MAX)
		return;
	gz_store(&line->backlog, listener->members->wish);
	gz_store(&line->program, listener->members->sock->arena->program);
}

void listener_line_write(struct listener *listener, uint32_t slot)
{
	struct user *user = listener->members->sock->arena->user;
	struct gz_worker_page *page = listener->sockets->stack->page;

	if (!quota_take(user, QUOTA_LINES))
		return; /* as below */

	for (uint32_t i = 0; i < GZ_LISTENERS_MAX; i++) {
		if (gz_load(&page->listeners[i].port_owner))
			continue;
		memcpy(page->listeners[i].addr, listener->addr, sizeof(listener->addr));
		page->listeners[i].v6only = listener->v6only;
		page->listeners[i].netns = listener_vouch(listener)->netns;
		listener->page_slot = i;
		listener_line_update(listener);
		gz_store_release(&page->listeners[i].port_owner,
		                 (uint32_t)listener->port << 16 | (slot & 0xffffu) | 0x8000u);
		listener->payer = user;
		quota_hold(user);
		return;
	}
	quota_give(user, QUOTA_LINES);
	/* None left: it works all the same; only others do not see it. */
}

void listener_line_erase(struct listener *listener)
{
	if (listener->page_slot == GZ_LISTENERS_MAX)
		return;
	gz_store_release(&listener->sockets->stack->page->listeners[listener->page_slot].port_owner, 0);
	quota_give(listener->payer, QUOTA_LINES);
	quota_let_go(listener->payer);
}
