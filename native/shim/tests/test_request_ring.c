/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Requests and the stock of numbers, with the shim's own code on one side and a worker's thread on the other. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "worker/requests.h"
#include "core/shim.h"

#define THREADS 4
#define POSTS 20000u

static struct attachment peer;
static struct gz_worker_page page;
static _Atomic bool stop;
/* What the worker saw: the last serial of each thread, which must come in order. */
static uint32_t last[THREADS], out_of_order, seen;

static void *zeroed(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static int open_attachment(void **state)
{
	(void)state;
	memset(&peer, 0, sizeof(peer));
	peer.ops = peer_ops[PEER_WORKER];
	peer.channel = zeroed(sizeof(*peer.channel));
	peer.socks = zeroed(GZ_SOCKS_MAX * sizeof(*peer.socks));
	peer.page = &page;
	peer.wake_fd = -1;
	peer.control_fd = -1;
	gz_store(&stop, false);
	memset(last, 0, sizeof(last));
	out_of_order = seen = 0;
	return 0;
}

static int close_attachment(void **state)
{
	(void)state;
	munmap(peer.channel, sizeof(*peer.channel));
	munmap(peer.socks, GZ_SOCKS_MAX * sizeof(*peer.socks));
	return 0;
}

static void ignore(void *ctx, uint32_t n)
{
	(void)ctx;
	(void)n;
}

static void serve_ring(uint32_t *tail)
{
	struct gz_request_ring *ring = &peer.channel->requests;

	while (*tail != gz_load_acquire(&ring->head)) {
		struct gz_request request = ring->slot[*tail % GZ_REQUESTS];

		gz_store_release(&ring->tail, ++*tail);
		out_of_order += request.arg != last[request.sock] + 1;
		last[request.sock] = request.arg;
		seen++;
	}
}

static void *work(void *arg)
{
	uint32_t tail = 0, head = 0, next = 1;
	struct gz_stock *stock = &peer.channel->stock;

	(void)arg;
	while (!gz_load(&stop) || gz_bell_pending(&peer.channel->to_worker)) {
		gz_bell_take(&peer.channel->to_worker, 64, ignore, NULL);
		serve_ring(&tail);
		while (head - gz_load_acquire(&stock->tail) < 8) {
			gz_store(&stock->slot[head % GZ_STOCK], next++);
			gz_store_release(&stock->head, ++head);
		}
		sched_yield();
	}
	serve_ring(&tail);
	return NULL;
}

static void *post(void *arg)
{
	uint32_t me = (uint32_t)(uintptr_t)arg;

	for (uint32_t i = 1; i <= POSTS; i++) {
		struct gz_request request = { .op = GZ_REQUEST_BACKLOG, .sock = me, .arg = i };

		if (request_post(&peer, &request))
			return (void *)1;
	}
	return NULL;
}

static void requests_of_many_threads_arrive_in_their_order(void **state)
{
	pthread_t worker, poster[THREADS];
	void *failed;

	(void)state;
	assert_int_equal(pthread_create(&worker, NULL, work, NULL), 0);
	for (uintptr_t t = 0; t < THREADS; t++)
		assert_int_equal(pthread_create(&poster[t], NULL, post, (void *)t), 0);
	for (int t = 0; t < THREADS; t++) {
		pthread_join(poster[t], &failed);
		assert_null(failed);
	}
	gz_store(&stop, true);
	pthread_join(worker, NULL);
	assert_int_equal(seen, THREADS * POSTS);
	assert_int_equal(out_of_order, 0);
}

#define TAKES 2000u
static _Atomic uint8_t taken[THREADS * TAKES + 1024];

static void *take(void *arg)
{
	for (uint32_t i = 0; i < TAKES; i++) {
		uint32_t n = request_number(&peer, arg);

		if (!n || atomic_fetch_add(&taken[n], 1))
			return (void *)1;
	}
	return NULL;
}

static void no_number_is_granted_twice(void **state)
{
	pthread_t worker, taker[THREADS];
	void *failed;

	(void)state;
	assert_int_equal(pthread_create(&worker, NULL, work, NULL), 0);
	for (uintptr_t t = 0; t < THREADS; t++)
		assert_int_equal(pthread_create(&taker[t], NULL, take, (void *)(t + 1)), 0);
	for (int t = 0; t < THREADS; t++) {
		pthread_join(taker[t], &failed);
		assert_null(failed);
	}
	gz_store(&stop, true);
	pthread_join(worker, NULL);
	assert_int_equal(gz_load(&peer.used), THREADS * TAKES);
}

static void a_dead_worker_holds_nobody_up(void **state)
{
	struct gz_request request = { .op = GZ_REQUEST_BACKLOG };

	(void)state;
	for (uint32_t i = 0; i < GZ_REQUESTS; i++)
		assert_int_equal(request_post(&peer, &request), 0);
	gz_store(&peer.dead, true);
	assert_int_equal(request_post(&peer, &request), -ECONNRESET); /* the ring is full, and nobody will empty it */
	assert_int_equal(request_number(&peer, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(requests_of_many_threads_arrive_in_their_order, open_attachment,
		                                close_attachment),
		cmocka_unit_test_setup_teardown(no_number_is_granted_twice, open_attachment, close_attachment),
		cmocka_unit_test_setup_teardown(a_dead_worker_holds_nobody_up, open_attachment, close_attachment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
