/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Idle polling: a worker before whom time passes in steps of a turn, and a load that decides when its next work comes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "idle_polling.h"

#define US 1000ull
#define MS (1000 * US)
#define MOST (100 * US)
#define TURN US

/* When work comes next: so long after the worker was done if it still looks then, so long after it went to sleep if not. */
struct load {
	uint64_t while_looking_ns, after_sleep_ns;
};

#define NEVER UINT64_MAX

struct world {
	struct idle_polling polling;
	uint64_t now, looked, found, sleeps;
};

static void silence(struct world *w, struct load load)
{
	uint64_t idle = 0;
	bool looked = false;

	while (idle_polling_lasts(&w->polling, idle)) {
		idle += TURN;
		looked = true;
		if (idle >= load.while_looking_ns)
			break;
	}
	w->now += idle;
	w->looked += idle;
	if (idle >= load.while_looking_ns) {
		w->found++;
	} else {
		idle_polling_slept(&w->polling, w->now, idle, load.after_sleep_ns);
		w->now += load.after_sleep_ns;
		idle += load.after_sleep_ns;
		w->sleeps++;
		looked = false;
	}
	idle_polling_work(&w->polling, w->now, idle, looked);
}

static struct world after(uint64_t ns, struct load load)
{
	struct world w = { .now = MS };

	idle_polling_init(&w.polling, MOST);
	while (w.now < MS + ns)
		silence(&w, load);
	return w;
}

static void test_what_comes_soon_is_always_found(void **state)
{
	struct world w = after(100 * MS, (struct load){ 30 * US, 45 * US });

	(void)state;
	assert_int_equal(w.sleeps, 0);
	assert_int_equal(w.polling.ns, MOST);
}

static void test_who_needs_our_cpu_is_not_looked_for(void **state)
{
	/* The packet comes right after we have gone, however long the polling: looking longer looks like the remedy and is not. */
	for (uint64_t after_sleep = 5 * US; after_sleep <= 90 * US; after_sleep += 5 * US) {
		struct world w = after(1000 * MS, (struct load){ NEVER, after_sleep });

		assert_int_equal(w.found, 0);
		assert_in_range(w.looked, 1, 1000 * MS / 50);
	}
	(void)state;
}

static void test_a_silence_shortens_the_look_out_once(void **state)
{
	struct world w = { .now = MS };

	(void)state;
	idle_polling_init(&w.polling, MOST);
	idle_polling_slept(&w.polling, w.now, MOST + TURN, 4 * MS); /* it has lasted a turn longer than it should */
	assert_int_equal(w.polling.ns, MOST - MOST / 4);
	for (int nap = 1; nap < 100; nap++)
		idle_polling_slept(&w.polling, w.now + (uint64_t)nap * 4 * MS, MOST + (uint64_t)nap * 4 * MS, 4 * MS);
	assert_int_equal(w.polling.ns, MOST - MOST / 4);
}

static void test_rare_work_is_not_looked_for(void **state)
{
	struct world w = after(10000 * MS, (struct load){ NEVER, 60 * MS });

	(void)state;
	assert_int_equal(w.polling.ns, 0);
	assert_in_range(w.looked, 1, 10 * MOST);
}

static void test_look_outs_come_back_with_what_they_would_find(void **state)
{
	struct world w = after(1000 * MS, (struct load){ NEVER, 10 * MS });
	uint64_t sleeps;

	(void)state;
	assert_int_equal(w.polling.ns, 0);
	for (uint64_t until = w.now + 50 * MS; w.now < until;)
		silence(&w, (struct load){ 20 * US, 30 * US });
	sleeps = w.sleeps;
	for (uint64_t until = w.now + 50 * MS; w.now < until;)
		silence(&w, (struct load){ 20 * US, 30 * US });
	assert_int_equal(w.sleeps, sleeps);
}

static void test_what_is_found_must_make_up_for_what_is_not(void **state)
{
	static const struct load found = { 60 * US, 15 * US }, missed = { NEVER, 15 * US };
	struct world often = { .now = MS }, seldom = { .now = MS };

	(void)state;
	idle_polling_init(&often.polling, MOST);
	idle_polling_init(&seldom.polling, MOST);
	for (int i = 0; i < 5000; i++) {
		silence(&often, i % 4 ? found : missed);
		silence(&seldom, i % 4 ? missed : found);
	}
	assert_in_range(often.found, 3700, 3750);
	assert_in_range(seldom.looked, 1, (seldom.now - MS) / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_comes_soon_is_always_found),
		cmocka_unit_test(test_who_needs_our_cpu_is_not_looked_for),
		cmocka_unit_test(test_a_silence_shortens_the_look_out_once),
		cmocka_unit_test(test_rare_work_is_not_looked_for),
		cmocka_unit_test(test_look_outs_come_back_with_what_they_would_find),
		cmocka_unit_test(test_what_is_found_must_make_up_for_what_is_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
