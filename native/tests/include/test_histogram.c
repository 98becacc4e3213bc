/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <gazelle/atomic.h>
#include <gazelle/histogram.h>

static void test_buckets_follow_each_other(void **state)
{
	uint32_t last = 0;

	(void)state;
	for (uint64_t ns = 1; ns < 1ull << 33; ns += 1 + ns / 64) {
		uint32_t index = gz_histogram_index(ns);

		assert_in_range(index, last, last + 1);
		last = index;
	}
	assert_int_equal(last, GZ_HISTOGRAM_BUCKETS - 1);
	assert_int_equal(gz_histogram_index(UINT64_MAX), GZ_HISTOGRAM_BUCKETS - 1);
}

static void test_a_bucket_is_narrow(void **state)
{
	(void)state;
	for (uint64_t ns = 16; ns < 1ull << 32; ns += 1 + ns / 8)
		assert_int_not_equal(gz_histogram_index(ns), gz_histogram_index(ns + ns / 16 + 1));
	for (uint32_t ns = 0; ns < 16; ns++)
		assert_int_equal(gz_histogram_index(ns), ns);
}

static void test_what_is_added_is_counted(void **state)
{
	static struct gz_histogram h;

	(void)state;
	gz_histogram_add(&h, 1000);
	gz_histogram_add(&h, 1000);
	gz_histogram_add(&h, 5);
	assert_int_equal(gz_load(&h.count), 3);
	assert_int_equal(gz_load(&h.max_ns), 1000);
	assert_int_equal(gz_load(&h.bucket[gz_histogram_index(1000)]), 2);
	assert_int_equal(gz_load(&h.bucket[5]), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buckets_follow_each_other),
		cmocka_unit_test(test_a_bucket_is_narrow),
		cmocka_unit_test(test_what_is_added_is_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
