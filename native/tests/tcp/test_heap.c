/* SPDX-License-Identifier: MulanPSL-2.0 */
/* lwIP's memory: cells are reused, the limit holds, and with AddressSanitizer nobody touches what is free. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#ifndef __has_feature /* clang has no macro of its own for it */
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define POISONED
#include <sanitizer/asan_interface.h>
#endif

#include "tcp/heap.h"

static const size_t tried[] = { 1, 24, 33, 100, 513, 1600, 5000, HEAP_CELL_MAX, HEAP_CELL_MAX + 1, 1u << 20 };
#define TRIED (sizeof(tried) / sizeof(tried[0]))

static void cells_are_reused(void **state)
{
	void *cell[TRIED];
	size_t taken;

	for (uint32_t i = 0; i < TRIED; i++) {
		cell[i] = lwip_heap_calloc(1, tried[i]);
		assert_non_null(cell[i]);
		memset(cell[i], 0xa5, tried[i]);
	}
	taken = heap_taken();
	for (uint32_t i = 0; i < TRIED; i++)
		lwip_heap_free(cell[i]);
	for (uint32_t round = 0; round < 1000; round++) {
		for (uint32_t i = 0; i < TRIED; i++)
			cell[i] = lwip_heap_alloc(tried[i]);
		for (uint32_t i = 0; i < TRIED; i++)
			lwip_heap_free(cell[i]);
	}
	assert_true(heap_taken() <= taken);
}

static void the_limit_holds(void **state)
{
	uint64_t refused = heap_refused();

	heap_set_limit(heap_taken());
	assert_null(lwip_heap_alloc(8u << 20));
	assert_int_equal(heap_refused(), refused + 1);
	heap_set_limit(0);
}

#ifdef POISONED
static void what_is_free_may_not_be_touched(void **state)
{
	for (uint32_t i = 0; i < TRIED && tried[i] <= HEAP_CELL_MAX; i++) {
		uint8_t *cell = lwip_heap_alloc(tried[i]);

		assert_null(__asan_region_is_poisoned(cell, tried[i]));
		if (tried[i] == 33 || tried[i] == 5000) /* cells are larger than that */
			assert_true(__asan_address_is_poisoned(cell + (tried[i] + 7) / 8 * 8));
		lwip_heap_free(cell);
		assert_true(__asan_address_is_poisoned(cell));
		assert_true(__asan_address_is_poisoned(cell + tried[i] - 1));
	}
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cells_are_reused),
		cmocka_unit_test(the_limit_holds),
#ifdef POISONED
		cmocka_unit_test(what_is_free_may_not_be_touched),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
