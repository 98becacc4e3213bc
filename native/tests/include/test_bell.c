/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The bell: what is rung is taken, once, whatever the ringer does meanwhile; and the two-phase sleep loses nothing. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include <gazelle/atomic.h>
#include <gazelle/bell.h>

static struct gz_bell bell;
static uint8_t heard[GZ_BELL_SOCKS];

static void hear(void *ctx, uint32_t n)
{
	(void)ctx;
	assert_true(n < GZ_BELL_SOCKS);
	heard[n]++;
}

static int silence(void **state)
{
	(void)state;
	memset(&bell, 0, sizeof(bell));
	memset(heard, 0, sizeof(heard));
	return 0;
}

static void every_ring_is_taken_once(void **state)
{
	uint32_t rung = 0;

	(void)state;
	srand(3);
	assert_false(gz_bell_pending(&bell));
	for (int i = 0; i < 5000; i++) {
		uint32_t n = (uint32_t)rand() % GZ_BELL_SOCKS;

		if (gz_bell_ring(&bell, n))
			rung++;
		assert_false(gz_bell_ring(&bell, n)); /* twice is once */
		assert_true(gz_bell_pending(&bell));
	}
	assert_int_equal(gz_bell_take(&bell, UINT32_MAX, hear, NULL), rung);
	assert_false(gz_bell_pending(&bell));
	for (uint32_t n = 0; n < GZ_BELL_SOCKS; n++) {
		assert_true(heard[n] <= 1);
		rung -= heard[n];
	}
	assert_int_equal(rung, 0);
}

static void a_budget_leaves_the_rest_rung(void **state)
{
	uint32_t taken = 0, turns = 0;

	(void)state;
	for (uint32_t n = 0; n < 1000; n++)
		gz_bell_ring(&bell, n * 65 % GZ_BELL_SOCKS);
	while (gz_bell_pending(&bell)) {
		uint32_t n = gz_bell_take(&bell, 10, hear, NULL);

		assert_true(n > 0 && n < 10 + 64);
		taken += n;
		turns++;
	}
	assert_int_equal(taken, 1000);
	assert_true(turns > 10);
}

/* A number that is rung after each change, as a socket's is: the taker must never stop at an old value. */
#define CHANGES 300000u
static _Atomic uint32_t changed[64];
static _Atomic uint32_t wakes;

static void *ring_changes(void *arg)
{
	(void)arg;
	for (uint32_t i = 1; i <= CHANGES; i++) {
		uint32_t n = i * 7 % 64;

		gz_store_release(&changed[n], i);
		gz_bell_ring(&bell, n * 1000);
		gz_fence();
		if (gz_load(&bell.asleep) && gz_exchange(&bell.asleep, 0))
			gz_add(&wakes, 1);
	}
	return NULL;
}

static uint32_t seen[64];

static void see(void *ctx, uint32_t n)
{
	(void)ctx;
	seen[n / 1000] = gz_load_acquire(&changed[n / 1000]);
}

static void the_last_change_is_always_seen(void **state)
{
	pthread_t ringer;
	uint32_t woken = 0;
	bool done = false;

	(void)state;
	assert_int_equal(pthread_create(&ringer, NULL, ring_changes, NULL), 0);
	while (!done) {
		gz_bell_take(&bell, 64, see, NULL);
		/* The two-phase sleep, with a counter in the eventfd's place. */
		gz_store(&bell.asleep, 1);
		gz_fence();
		while (!gz_bell_pending(&bell) && gz_load(&wakes) == woken && seen[CHANGES * 7 % 64] != CHANGES)
			sched_yield();
		gz_store(&bell.asleep, 0);
		woken = gz_load(&wakes);
		gz_bell_take(&bell, 64, see, NULL);
		done = seen[CHANGES * 7 % 64] == CHANGES && !gz_bell_pending(&bell);
	}
	pthread_join(ringer, NULL);
	gz_bell_take(&bell, UINT32_MAX, see, NULL);
	for (uint32_t n = 0; n < 64; n++)
		assert_int_equal(seen[n], gz_load(&changed[n]));
}

/* Plain memory, written before the ring. Nobody writes it again, so whoever takes the bit may read it. */
static uint32_t told[GZ_BELL_SOCKS];

static void *tell(void *arg)
{
	for (uint32_t i = 0; i < GZ_BELL_SOCKS; i++) {
		uint32_t n = i * 4099 % GZ_BELL_SOCKS;

		told[n] = n + 1;
		gz_bell_ring(&bell, n);
	}
	return arg;
}

static void read_told(void *ctx, uint32_t n)
{
	uint32_t *wrong = ctx;

	*wrong += told[n] != n + 1;
}

static void what_was_written_before_a_ring_is_seen(void **state)
{
	uint32_t taken = 0, wrong = 0;
	pthread_t teller;

	(void)state;
	assert_int_equal(pthread_create(&teller, NULL, tell, NULL), 0);
	while (taken < GZ_BELL_SOCKS) {
		uint32_t n = gz_bell_take(&bell, 64, read_told, &wrong);

		taken += n;
		if (!n)
			sched_yield();
	}
	pthread_join(teller, NULL);
	assert_int_equal(wrong, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(every_ring_is_taken_once, silence),
		cmocka_unit_test_setup(a_budget_leaves_the_rest_rung, silence),
		cmocka_unit_test_setup(the_last_change_is_always_seen, silence),
		cmocka_unit_test_setup(what_was_written_before_a_ring_is_seen, silence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
