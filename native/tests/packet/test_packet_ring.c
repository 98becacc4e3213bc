/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Rings between workers: order, wrap-around, a full ring, either side's restart, and a ring full of nonsense. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <gazelle/atomic.h>

#include "packet/packet_ring.h"
#include "core/run_memory.h"

static char dir[] = "/tmp/gz-ring-XXXXXX";
static struct packet_rings *rings;

static int set_up(void **state)
{
	strcpy(strrchr(dir, '-'), "-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	return packet_rings_open(dir, 3, 0, &rings);
}

static int tear_down(void **state)
{
	char path[64];

	packet_rings_close(rings);
	snprintf(path, sizeof(path), "%s/rings", dir);
	unlink(path);
	return rmdir(dir);
}

/* A record whose bytes follow from its number. */
static void fill(uint8_t *bytes, uint32_t number, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(number * 31 + i * 7);
}

static bool produce(struct packet_ring *ring, uint32_t number, uint32_t len)
{
	static uint8_t bytes[PACKET_RING_RECORD_MAX];
	struct packet_record record = { .len = len, .kind = 1, .visits = 2, .origin = (uint16_t)number };

	if (!packet_ring_has_room(ring, len))
		return false;
	fill(bytes, number, len);
	packet_ring_put(ring, &record, 0, bytes, len / 2); /* in two pieces, as a chain of mbufs comes */
	packet_ring_put(ring, &record, len / 2, bytes + len / 2, len - len / 2);
	packet_ring_commit(ring, &record);
	return true;
}

static void consume(struct packet_ring *ring, uint32_t number, uint32_t len)
{
	static uint8_t got[PACKET_RING_RECORD_MAX], want[PACKET_RING_RECORD_MAX];
	struct packet_record record;
	bool broken;

	assert_true(packet_ring_peek(ring, &record, &broken));
	assert_int_equal(record.len, len);
	assert_int_equal(record.origin, (uint16_t)number);
	packet_ring_get(ring, 0, got, len);
	fill(want, number, len);
	assert_memory_equal(got, want, len);
	packet_ring_drop(ring, &record);
}

static void records_keep_order_and_bytes_over_many_wraps(void **state)
{
	struct packet_ring *ring = packet_ring_of(rings, 1, 0);
	uint32_t in = 0, out = 0, seed = 1;

	while (out < 5000) {
		seed = seed * 1103515245 + 12345;
		if (seed >> 16 & 1 && produce(ring, in, 14 + in * 97 % 5000))
			in++;
		else if (out < in)
			consume(ring, out, 14 + out * 97 % 5000), out++;
	}
}

static void a_full_ring_refuses_and_goes_on_when_there_is_room(void **state)
{
	struct packet_ring *ring = packet_ring_of(rings, 1, 0);
	uint32_t n = 0;

	while (produce(ring, n, 65000))
		n++;
	assert_true(n >= ring_bytes(3) / 65536 - 1);
	assert_false(packet_ring_has_room(ring, PACKET_RING_RECORD_MAX + 1));
	consume(ring, 0, 65000);
	assert_true(produce(ring, n, 65000));
	for (uint32_t i = 1; i <= n; i++)
		consume(ring, i, 65000);
	assert_false(packet_ring_pending(ring));
}

static void a_restarted_consumer_starts_at_what_comes_next(void **state)
{
	struct packet_rings *again;
	struct packet_ring *ring = packet_ring_of(rings, 1, 0);

	assert_true(produce(ring, 1, 100));
	assert_int_equal(packet_rings_open(dir, 3, 0, &again), 0);
	assert_false(packet_ring_pending(packet_ring_of(again, 1, 0)));
	assert_true(produce(ring, 2, 100));
	consume(packet_ring_of(again, 1, 0), 2, 100);
	packet_rings_close(again);
}

static void a_restarted_producer_goes_on_where_it_was(void **state)
{
	struct packet_rings *again;

	assert_true(produce(packet_ring_of(rings, 1, 0), 1, 100));
	assert_int_equal(packet_rings_open(dir, 3, 1, &again), 0);
	assert_true(produce(packet_ring_of(again, 1, 0), 2, 200));
	packet_rings_close(again);
	consume(packet_ring_of(rings, 1, 0), 1, 100);
	consume(packet_ring_of(rings, 1, 0), 2, 200);
}

static void nonsense_is_emptied_not_followed(void **state)
{
	const uint64_t heads[] = { 4, 7, ring_bytes(3) + 8, 1ull << 40, UINT64_MAX };
	struct packet_ring *ring = packet_ring_of(rings, 2, 0);
	struct packet_record record;
	bool broken;

	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		gz_store(&ring->at->head, gz_load(&ring->at->tail) + heads[i]);
		assert_false(packet_ring_peek(ring, &record, &broken));
		assert_true(broken);
		assert_false(packet_ring_pending(ring));
		gz_store(&ring->at->head, 0);
		gz_store(&ring->at->tail, 0);
	}
	/* a length that reaches beyond what was published */
	record = (struct packet_record){ .len = 5000 };
	memcpy(ring->data, &record, sizeof(record));
	gz_store(&ring->at->head, 64);
	assert_false(packet_ring_peek(ring, &record, &broken));
	assert_true(broken);
	assert_true(produce(ring, 3, 300));
	consume(ring, 3, 300);
}

static void a_file_for_other_workers_is_refused(void **state)
{
	struct packet_rings *other;

	assert_int_equal(packet_rings_open(dir, 4, 0, &other), -EINVAL);
}

static void all_memory_is_there_before_a_ring_is_touched(void **state)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "%s/rings", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, rings_bytes(3));
	assert_true((uint64_t)st.st_blocks * 512 >= rings_bytes(3));
}

static void a_file_whose_maker_died_is_made_again(void **state)
{
	struct packet_rings *again;
	char path[64];

	snprintf(path, sizeof(path), "%s/rings", dir);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(truncate(path, 12345), 0);
	assert_int_equal(packet_rings_open(dir, 3, 1, &again), 0);
	assert_true(produce(packet_ring_of(again, 1, 0), 1, 100));
	packet_rings_close(again);
}

/* Every record finds its own way between every two of many workers. */
static void many_workers_have_small_rings_that_do_not_overlap(void **state)
{
	enum { MANY = 17 };
	struct packet_rings *end[MANY];

	tear_down(state);
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_true((MANY - 1) * ring_bytes(MANY) <= RINGS_OF_A_WORKER_BYTES);
	for (uint32_t i = 0; i < MANY; i++)
		assert_int_equal(packet_rings_open(dir, MANY, i, &end[i]), 0);
	for (uint32_t i = 0; i < MANY * MANY; i++)
		if (i / MANY != i % MANY)
			while (produce(packet_ring_of(end[i / MANY], i / MANY, i % MANY), i, 60000))
				;
	for (uint32_t i = 0; i < MANY * MANY; i++)
		if (i / MANY != i % MANY)
			consume(packet_ring_of(end[i % MANY], i / MANY, i % MANY), i, 60000);
	for (uint32_t i = 1; i < MANY; i++)
		packet_rings_close(end[i]);
	rings = end[0];
}

#define RECORDS 20000u

/* The worker at the other end is a thread, with the same mapping: so ThreadSanitizer sees both. */
static void *produce_all(void *arg)
{
	struct packet_ring *ring = packet_ring_of(rings, 1, 0);

	for (uint32_t i = 0; i < RECORDS;) {
		if (produce(ring, i, 14 + i * 97 % 3000))
			i++;
		else
			sched_yield();
	}
	return arg;
}

static void two_workers_need_nothing_else(void **state)
{
	struct packet_ring *ring = packet_ring_of(rings, 1, 0);
	pthread_t producer;

	assert_int_equal(pthread_create(&producer, NULL, produce_all, NULL), 0);
	for (uint32_t i = 0; i < RECORDS;) {
		if (packet_ring_pending(ring)) {
			consume(ring, i, 14 + i * 97 % 3000);
			i++;
		} else {
			sched_yield();
		}
	}
	pthread_join(producer, NULL);
	assert_false(packet_ring_pending(ring));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(records_keep_order_and_bytes_over_many_wraps, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_full_ring_refuses_and_goes_on_when_there_is_room, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_restarted_consumer_starts_at_what_comes_next, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_restarted_producer_goes_on_where_it_was, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nonsense_is_emptied_not_followed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_file_for_other_workers_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(all_memory_is_there_before_a_ring_is_touched, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_file_whose_maker_died_is_made_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(two_workers_need_nothing_else, set_up, tear_down),
		cmocka_unit_test_setup_teardown(many_workers_have_small_rings_that_do_not_overlap, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
