/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "apps/orphan.h"

#include "apps/app.h"
#include "socket/conn.h"
#include "core/worker.h"

/* Who has waited longest stands first, so that the look for those that are overdue ends at the first that is not. */
static void append(struct conn *conn)
{
	struct apps *apps = conn->apps;

	conn->progress_ns = apps->stack->now_ns;
	conn->orphan_next = NULL;
	conn->orphan_prev = apps->orphans_last;
	if (apps->orphans_last)
		apps->orphans_last->orphan_next = conn;
	else
		apps->orphans = conn;
	apps->orphans_last = conn;
	conn->waits = true;
}

static void take_out(struct conn *conn)
{
	struct apps *apps = conn->apps;

	if (conn->orphan_prev)
		conn->orphan_prev->orphan_next = conn->orphan_next;
	else
		apps->orphans = conn->orphan_next;
	if (conn->orphan_next)
		conn->orphan_next->orphan_prev = conn->orphan_prev;
	else
		apps->orphans_last = conn->orphan_prev;
	conn->waits = false;
}

bool orphan_begin(struct conn *conn)
{
	if (!quota_charge(conn->arena->user, &conn->charges, QUOTA_ORPHANS))
		return false;
	append(conn);
	return true;
}

void orphan_progress(struct conn *conn)
{
	if (!conn->waits)
		return;
	take_out(conn);
	append(conn);
}

void orphan_end(struct conn *conn)
{
	if (conn->waits)
		take_out(conn);
}

void orphans_end_overdue(struct apps *apps)
{
	while (apps->orphans && apps->stack->now_ns - apps->orphans->progress_ns > ORPHAN_PATIENCE_NS) {
		struct conn *conn = apps->orphans;

		take_out(conn);
		conn_reset(conn);
	}
}
