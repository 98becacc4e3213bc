/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The library's lock, and its event queues, between threads: what it guards is plain memory, so a race is a race to see. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

#include "core/eventq.h"
#include "core/lock.h"
#include "core/sock.h"

#define THREADS 4
#define ROUNDS 50000u

static struct lock lock;
static struct {
	uint64_t count, sum;
	uint32_t inside;
} guarded;

static void *add(void *arg)
{
	for (uint32_t i = 0; i < ROUNDS; i++) {
		if (i % 3)
			lock_take(&lock);
		else
			while (!lock_try(&lock))
				sched_yield();
		guarded.inside++;
		guarded.count++;
		guarded.sum += (uintptr_t)arg;
		if (i % 64 == 0)
			sched_yield(); /* others come and sleep on it */
		guarded.inside--;
		lock_give(&lock);
	}
	return NULL;
}

static void what_a_lock_guards_is_one_threads_at_a_time(void **state)
{
	pthread_t thread[THREADS];

	(void)state;
	for (uintptr_t t = 0; t < THREADS; t++)
		assert_int_equal(pthread_create(&thread[t], NULL, add, (void *)t), 0);
	for (int t = 0; t < THREADS; t++)
		pthread_join(thread[t], NULL);
	assert_int_equal(guarded.count, THREADS * ROUNDS);
	assert_int_equal(guarded.sum, (uint64_t)ROUNDS * THREADS * (THREADS - 1) / 2);
	assert_int_equal(guarded.inside, 0);
	assert_int_equal(gz_load(&lock.word), 0);
}

/* Who has a queue, by number; plain memory again. */
static uint32_t owner[GZ_EVENT_QUEUES];

static void *take_and_give(void *arg)
{
	for (uint32_t i = 0; i < ROUNDS / 10; i++) {
		uint32_t queue = eventq_take();

		if (queue == EVENTQ_SHARED)
			continue;
		if (owner[queue])
			return (void *)1;
		owner[queue] = (uint32_t)(uintptr_t)arg + 1;
		eventq_declare(queue);
		eventq_wake(queue);
		eventq_retract(queue);
		owner[queue] = 0;
		eventq_give(queue);
	}
	return NULL;
}

static void an_event_queue_is_one_threads(void **state)
{
	pthread_t thread[THREADS];
	void *shared;

	(void)state;
	for (uintptr_t t = 0; t < THREADS; t++)
		assert_int_equal(pthread_create(&thread[t], NULL, take_and_give, (void *)t), 0);
	for (int t = 0; t < THREADS; t++) {
		pthread_join(thread[t], &shared);
		assert_null(shared);
	}
}

static void *give_the_last(void *s)
{
	sock_put(s);
	return NULL;
}

/* As a close() in the moment in which another thread has found the descriptor, and is about to take its reference. */
static void a_socket_that_is_found_while_it_is_closed_ends_once(void **state)
{
	struct sock *s = sock_new(AF_INET), *other, *again;
	pthread_t closer;

	(void)state;
	lock_take(&s->rx);
	assert_int_equal(pthread_create(&closer, NULL, give_the_last, s), 0);
	while (gz_load(&s->refs))
		sched_yield();
	sock_hold(s);
	lock_give(&s->rx);
	pthread_join(closer, NULL);
	other = sock_new(AF_INET);
	assert_ptr_not_equal(other, s);
	sock_unhold(s);
	again = sock_new(AF_INET);
	assert_ptr_equal(again, s);
	s = sock_new(AF_INET);
	assert_ptr_not_equal(again, s);
	sock_put(other);
	sock_put(again);
	sock_put(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_lock_guards_is_one_threads_at_a_time),
		cmocka_unit_test(a_socket_that_is_found_while_it_is_closed_ends_once),
		cmocka_unit_test(an_event_queue_is_one_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
