/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "socket/orphan.h"

#include <stddef.h>

#include "arena/arena.h"
#include "arena/quota.h"
#include "socket/conn.h"
#include "socket/sockets.h"
#include "core/worker.h"

/* Who has waited longest stands first, so that the look for those that are overdue ends at the first that is not. */
static void append(struct conn *conn)
{
	struct sockets *sockets = conn->sockets;

	conn->progress_ns = sockets->stack->now_ns;
	conn->orphan_next = NULL;
	conn->orphan_prev = sockets->orphans_last;
	if (sockets->orphans_last)
		sockets->orphans_last->orphan_next = conn;
	else
		sockets->orphans = conn;
	sockets->orphans_last = conn;
	conn->waits = true;
}

static void take_out(struct conn *conn)
{
	struct sockets *sockets = conn->sockets;

	if (conn->orphan_prev)
		conn->orphan_prev->orphan_next = conn->orphan_next;
	else
		sockets->orphans = conn->orphan_next;
	if (conn->orphan_next)
		conn->orphan_next->orphan_prev = conn->orphan_prev;
	else
		sockets->orphans_last = conn->orphan_prev;
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

struct conn *orphan_overdue(struct sockets *sockets)
{
	struct conn *conn = sockets->orphans;

	if (!conn || sockets->stack->now_ns - conn->progress_ns <= ORPHAN_PATIENCE_NS)
		return NULL;
	take_out(conn);
	return conn;
}
