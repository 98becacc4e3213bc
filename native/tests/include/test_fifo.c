/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The byte FIFO against a plain queue of bytes, across index wrap, and between two threads. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include <gazelle/atomic.h>
#include <gazelle/fifo.h>

#define SIZE 4096u

struct fifo {
	struct gz_end producer, consumer;
	uint8_t block[SIZE];
};

static uint32_t put(struct fifo *f, const uint8_t *src, uint32_t len)
{
	uint32_t room = gz_fifo_writable(&f->producer, &f->consumer, SIZE), n = len < room ? len : room;

	if (n) {
		uint32_t base = gz_fifo_rebase(&f->producer, &f->consumer);
		gz_fifo_copy_in(f->block, SIZE, base, gz_load(&f->producer.out_head), src, n);
		gz_fifo_publish(&f->producer, n);
	}
	return n;
}

static uint32_t get(struct fifo *f, uint8_t *dst, uint32_t len)
{
	uint32_t there = gz_fifo_readable(&f->consumer, &f->producer, SIZE), n = len < there ? len : there;

	if (n) {
		gz_fifo_copy_out(f->block, SIZE, gz_load(&f->producer.out_base), gz_load(&f->consumer.in_tail), dst, n);
		gz_fifo_consume(&f->consumer, n);
	}
	return n;
}

static uint8_t pattern(uint32_t i)
{
	return (uint8_t)((i * 2654435761u) >> 11);
}

/* Random puts and gets, checked byte for byte; the indices start just before they wrap. */
static void bytes_come_out_as_they_went_in(void **state)
{
	struct fifo *f = calloc(1, sizeof(*f));
	uint8_t buf[SIZE + 64];
	uint32_t in = 0, out = 0;

	(void)state;
	gz_store(&f->producer.out_head, UINT32_MAX - 3 * SIZE);
	gz_store(&f->producer.out_base, UINT32_MAX - 3 * SIZE);
	gz_store(&f->consumer.in_tail, UINT32_MAX - 3 * SIZE);
	srand(7);
	for (int round = 0; round < 200000; round++) {
		uint32_t len = (uint32_t)rand() % (rand() % 8 ? 300 : sizeof(buf));

		if (rand() % 2) {
			for (uint32_t i = 0; i < len; i++)
				buf[i] = pattern(in + i);
			uint32_t n = put(f, buf, len);
			assert_int_equal(n, len < SIZE - (in - out) ? len : SIZE - (in - out));
			in += n;
		} else {
			uint32_t n = get(f, buf, len);
			assert_int_equal(n, len < in - out ? len : in - out);
			for (uint32_t i = 0; i < n; i++)
				assert_int_equal(buf[i], pattern(out + i));
			out += n;
		}
	}
	free(f);
}

static void small_exchanges_stay_at_the_start_of_the_block(void **state)
{
	struct fifo *f = calloc(1, sizeof(*f));
	uint8_t buf[100];

	(void)state;
	for (uint32_t i = 0; i < 1000; i++) {
		memset(buf, (int)i, sizeof(buf));
		assert_int_equal(put(f, buf, sizeof(buf)), sizeof(buf));
		assert_int_equal(get(f, buf, sizeof(buf)), sizeof(buf));
	}
	for (uint32_t i = sizeof(buf); i < SIZE; i++)
		assert_int_equal(f->block[i], 0);
	free(f);
}

static void impossible_indices_are_found(void **state)
{
	struct fifo *f = calloc(1, sizeof(*f));

	(void)state;
	gz_store(&f->producer.out_head, SIZE);
	assert_int_equal(gz_fifo_readable(&f->consumer, &f->producer, SIZE), SIZE);
	gz_store(&f->producer.out_head, SIZE + 1);
	assert_int_equal(gz_fifo_readable(&f->consumer, &f->producer, SIZE), GZ_FIFO_BROKEN);
	gz_store(&f->producer.out_head, 0);
	gz_store(&f->consumer.in_tail, 1); /* consumed what was never produced */
	assert_int_equal(gz_fifo_writable(&f->producer, &f->consumer, SIZE), GZ_FIFO_BROKEN);
	free(f);
}

#define STREAM (16u << 20)

static void *produce(void *arg)
{
	struct fifo *f = arg;
	uint8_t buf[777];

	for (uint32_t done = 0; done < STREAM;) {
		uint32_t len = STREAM - done < sizeof(buf) ? STREAM - done : (uint32_t)sizeof(buf), sent = 0;

		for (uint32_t i = 0; i < len; i++)
			buf[i] = pattern(done + i);
		while (sent < len) {
			uint32_t n = put(f, buf + sent, len - sent);
			sent += n;
			if (!n)
				sched_yield();
		}
		done += len;
	}
	return NULL;
}

static void two_threads_need_nothing_else(void **state)
{
	struct fifo *f = aligned_alloc(64, (sizeof(*f) + 63) / 64 * 64);
	pthread_t producer;
	uint8_t buf[1000];
	uint32_t seen = 0, wrong = 0;

	(void)state;
	memset(f, 0, sizeof(*f));
	assert_int_equal(pthread_create(&producer, NULL, produce, f), 0);
	while (seen < STREAM) {
		uint32_t n = get(f, buf, sizeof(buf));

		for (uint32_t i = 0; i < n; i++)
			wrong += buf[i] != pattern(seen++);
		if (!n)
			sched_yield();
	}
	pthread_join(producer, NULL);
	assert_int_equal(wrong, 0);
	free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_come_out_as_they_went_in),
		cmocka_unit_test(small_exchanges_stay_at_the_start_of_the_block),
		cmocka_unit_test(impossible_indices_are_found),
		cmocka_unit_test(two_threads_need_nothing_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
