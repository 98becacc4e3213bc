/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Pieces of a stream against a map of all its bytes, in random order, across the wrap of sequence numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "socket/ahead.h"

#define SPAN 4000u
#define START (UINT32_MAX - SPAN / 2) /* the wrap is in the middle */

static struct ahead ahead;
static uint8_t map[SPAN];

static void same_as_the_map(uint32_t expected)
{
	uint32_t at = expected;

	for (uint32_t i = 0; i < ahead.count; i++) {
		uint32_t from = ahead.piece[i].from - START, to = ahead.piece[i].to - START;

		assert_true(from < to && to <= SPAN && (from > at || (!i && from == at)));
		for (; at < from; at++)
			assert_false(map[at]);
		for (; at < to; at++)
			assert_true(map[at]);
	}
	for (; at < SPAN; at++)
		assert_false(map[at]);
}

static void pieces_are_joined_and_taken(void **state)
{
	(void)state;
	srand(1);
	for (uint32_t round = 0; round < 200; round++) {
		uint32_t expected = 0, longest = 1 + (uint32_t)rand() % 60;

		memset(&ahead, 0, sizeof(ahead));
		memset(map, 0, sizeof(map));
		while (expected < SPAN) {
			uint32_t from = expected + (uint32_t)rand() % (SPAN - expected),
				 len = 1 + (uint32_t)rand() % longest;

			if (from + len > SPAN)
				len = SPAN - from;
			if (from > expected) {
				const struct ahead_piece *piece = ahead_add(&ahead, START + from, START + from + len);

				if (piece) {
					memset(map + from, 1, len);
					assert_true(piece->from - START <= from && piece->to - START >= from + len);
				} else {
					assert_int_equal(ahead.count, AHEAD_PIECES);
				}
			}
			if (from == expected || rand() % 4 == 0) { /* the next in order comes */
				expected += len < SPAN - expected ? len : SPAN - expected;
				uint32_t follows = ahead_take(&ahead, START + expected);

				for (uint32_t i = 0; i < follows; i++)
					assert_true(map[expected + i]);
				expected += follows;
				assert_true(expected == SPAN || !map[expected]);
			}
			same_as_the_map(expected);
		}
		assert_int_equal(ahead.count, 0);
	}
}

static void what_finds_no_place_is_not_taken(void **state)
{
	(void)state;
	memset(&ahead, 0, sizeof(ahead));
	for (uint32_t i = 0; i < AHEAD_PIECES; i++)
		assert_non_null(ahead_add(&ahead, 10 + 2 * i, 11 + 2 * i));
	assert_null(ahead_add(&ahead, 5, 6));
	assert_null(ahead_add(&ahead, 10 + 2 * AHEAD_PIECES, 11 + 2 * AHEAD_PIECES));
	assert_int_equal(ahead_add(&ahead, 11, 12)->to, 13); /* it fills a gap */
	assert_int_equal(ahead.count, AHEAD_PIECES - 1);
	assert_non_null(ahead_add(&ahead, 5, 6));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_are_joined_and_taken),
		cmocka_unit_test(what_finds_no_place_is_not_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
