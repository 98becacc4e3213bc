/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "socket/ahead.h"

#include <string.h>

#include <hooks.h>

static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

/* Replaces the pieces first..last-1 by one, or makes room for one if there are none. */
static void put(struct ahead *ahead, uint32_t first, uint32_t last, struct ahead_piece piece)
{
	memmove(ahead->piece + first + 1, ahead->piece + last, (ahead->count - last) * sizeof(piece));
	ahead->count = ahead->count - last + first + 1;
	ahead->piece[first] = piece;
}

const struct ahead_piece *ahead_add(struct ahead *ahead, uint32_t from, uint32_t to)
{
	struct ahead_piece piece = { from, to };
	uint32_t first = ahead->count, last;

	/* From the end: mostly it continues the last piece, or begins one behind it. */
	while (first && !before(ahead->piece[first - 1].to, from))
		first--;
	for (last = first; last < ahead->count && !before(to, ahead->piece[last].from); last++) {
		if (before(ahead->piece[last].from, piece.from))
			piece.from = ahead->piece[last].from;
		if (before(piece.to, ahead->piece[last].to))
			piece.to = ahead->piece[last].to;
	}
	if (first == last && ahead->count == AHEAD_PIECES)
		return NULL;
	put(ahead, first, last, piece);
	return &ahead->piece[first];
}

uint32_t ahead_take(struct ahead *ahead, uint32_t at)
{
	uint32_t gone = 0, follows = 0;

	while (gone < ahead->count && !before(at, ahead->piece[gone].from)) {
		if (before(at, ahead->piece[gone].to)) {
			follows += ahead->piece[gone].to - at;
			at = ahead->piece[gone].to;
		}
		gone++;
	}
	ahead->count -= gone;
	memmove(ahead->piece, ahead->piece + gone, ahead->count * sizeof(ahead->piece[0]));
	return follows;
}

/* ------------------------------------------------------------------ lwIP */

static const struct ahead_owner *owner;

void ahead_set_owner(const struct ahead_owner *who)
{
	owner = who;
}

int lwip_out_of_order(struct tcp_pcb *pcb, u32_t seqno, const struct pbuf *p, int fin, u32_t *left, u32_t *right)
{
	return owner ? owner->keep(pcb, seqno, p, fin, left, right) : 0;
}

u32_t lwip_following(struct tcp_pcb *pcb)
{
	return owner ? owner->following(pcb) : 0;
}

int lwip_fin_follows(struct tcp_pcb *pcb)
{
	return owner ? owner->fin_follows(pcb) : 0;
}
