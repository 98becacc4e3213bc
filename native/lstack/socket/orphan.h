/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Orphans: connections whose last holder has let go of them while bytes were still on their way. They live from what the
 * peer acknowledges: one that gets nowhere for ORPHAN_PATIENCE_NS is reset, and so is one more than the user may have.
 */
#ifndef LSTACK_ORPHAN_H
#define LSTACK_ORPHAN_H

#include <stdbool.h>
#include <stdint.h>

struct conn;
struct sockets;

/* As long as Linux waits for the end of a connection that nobody has any more (tcp_fin_timeout). */
#define ORPHAN_PATIENCE_NS 60000000000ull

/* Nobody holds it now. False: its user has as many as one may, and the caller resets it, as Linux does. */
bool orphan_begin(struct conn *conn);

/* The peer has acknowledged something. */
void orphan_progress(struct conn *conn);

/* It is about to be freed. Nothing happens if it is no orphan. */
void orphan_end(struct conn *conn);

/* One that has waited too long, which is none from now on: the caller resets it. NULL: there is none. */
struct conn *orphan_overdue(struct sockets *sockets);

#endif
