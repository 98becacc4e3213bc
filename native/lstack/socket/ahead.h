/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Which bytes of a stream have come ahead of those expected next. The bytes themselves lie where they belong in the receive
 * FIFO, which has room for the whole window; here are only their places, in pieces with gaps between them. What would need
 * more pieces than there are places for is not taken: the peer sends it again.
 */
#ifndef LSTACK_AHEAD_H
#define LSTACK_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

struct pbuf;
struct tcp_pcb;

#define AHEAD_PIECES 128u

struct ahead_piece {
	uint32_t from, to; /* sequence numbers: [from, to) */
};

struct ahead {
	uint32_t count;
	bool fin;                               /* the stream ends at... */
	uint32_t fin_at;                        /* ...this number */
	struct ahead_piece piece[AHEAD_PIECES]; /* ascending, apart */
};

/* Adds [from, to), joining what it touches. Returns the piece it is part of now; NULL: no place. */
const struct ahead_piece *ahead_add(struct ahead *ahead, uint32_t from, uint32_t to);

/* Everything before `at` has come in order: forgets it, and returns how many bytes follow at once; they are forgotten, too. */
uint32_t ahead_take(struct ahead *ahead, uint32_t at);

/* Who keeps the bytes, as lwIP asks for it (hooks.h). Without an owner nothing is kept, and all of it comes again. */
struct ahead_owner {
	int (*keep)(struct tcp_pcb *pcb, uint32_t seqno, const struct pbuf *p, int fin, uint32_t *left, uint32_t *right);
	uint32_t (*following)(struct tcp_pcb *pcb);
	int (*fin_follows)(struct tcp_pcb *pcb);
};
void ahead_set_owner(const struct ahead_owner *owner);

#endif
