/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/channel.h>
#include <gazelle/control.h>

#include "worker/attach.h"
#include "worker/control.h"
#include "core/eventq.h"
#include "worker/program.h"
#include "worker/attachment.h"
#include "samehost/pair.h"
#include "core/real.h"
#include "core/shim.h"

/* A worker answers within microseconds; this long we wait before we believe it cannot. */
#define PATIENCE_NS 1000000000ull
/* And this long where we could go on without. */
#define SHORT_PATIENCE_NS 50000000ull

void attachment_wake(struct attachment *a, uint32_t sleep)
{
	struct gz_message message = { .kind = GZ_MESSAGE_WAKE };

	/* Noted after it was sent: another thread that finds it noted relies on it. */
	if (!control_send(a->wake_fd, &message, -1))
		gz_store(&a->woken, sleep);
}

struct turns {
	uint32_t count;
	struct patience patience;
};

/* One turn of waiting for a worker that is busy but there. False: it died, or the patience has ended. */
static bool wait_turn(struct attachment *a, struct turns *turns)
{
	if (gz_load(&a->dead))
		return false;
	sched_yield();
	if (++turns->count % 64)
		return true;
	if (turns->count == 64)
		patience_begin(&turns->patience, PATIENCE_NS);
	else if (!patience_left(&turns->patience, a->control_fd))
		return false;
	attach_check();
	return true;
}

static uint32_t pop_stock(struct gz_stock *stock)
{
	for (;;) {
		uint32_t t = gz_load(&stock->tail), n;

		if (t == gz_load_acquire(&stock->head)) /* pairs with the worker's release: the slot is written */
			return 0;
		n = gz_load(&stock->slot[t % GZ_STOCK]);
		if (gz_cas(&stock->tail, &t, t + 1))
			return n % GZ_SOCKS_MAX;
	}
}

uint32_t attachment_take_number(struct attachment *a, struct sock *sock)
{
	uint32_t n = pop_stock(&a->channel->stock);
	struct turns turns = { 0 };

	while (!n) {
		if (!turns.count)
			attachment_ring(a, 0); /* the worker tops up the stock whenever it looks at the request ring */
		if (!wait_turn(a, &turns))
			return 0;
		n = pop_stock(&a->channel->stock);
	}
	attachment_hold(a, n, sock);
	return n;
}

void attachment_hold(struct attachment *a, uint32_t n, struct sock *sock)
{
	gz_store_release(&a->socks[n % GZ_SOCKS_MAX], sock);
	gz_add(&a->used, 1);
	if (a->pair)
		shim_count_paired(1);
}

void attachment_let_go(struct attachment *a, uint32_t n)
{
	struct gz_request request = { .op = GZ_REQUEST_RELEASE, .sock = n };

	gz_store(&a->socks[n % GZ_SOCKS_MAX], NULL);
	gz_add(&a->used, (uint32_t)-1);
	if (a->pair)
		shim_count_paired(-1);
	if (gz_load(&a->dead))
		return;
	if (a->pair) {
		pair_let_go(a, n);
		return;
	}
	if (!a->channel) {
		program_dropped(a, n);
		return;
	}
	gz_store(&a->channel->interest[n % GZ_SOCKS_MAX], 0);
	(void)attachment_post(a, &request);
}

int attachment_vouch(struct attachment *a, uint32_t n, int fd)
{
	struct gz_message message = { .kind = GZ_MESSAGE_VOUCH, .number = n };
	struct turns turns = { 0 };
	int err;

	do {
		lock_take(&a->post);
		err = control_send(a->control_fd, &message, fd);
		lock_give(&a->post);
		/* No room, or too many descriptors of this user on their way: the worker reads. */
	} while ((err == -EAGAIN || err == -ETOOMANYREFS) && wait_turn(a, &turns));
	return err;
}

int attachment_post(struct attachment *a, const struct gz_request *request)
{
	struct gz_request_ring *ring = &a->channel->requests;
	struct turns turns = { 0 };
	uint32_t head;
	int err = 0;

	lock_take(&a->post);
	head = gz_load(&ring->head);
	/* The acquire pairs with the worker's release of the tail: it has read that slot. */
	while (head - gz_load_acquire(&ring->tail) >= GZ_REQUESTS) {
		if (!turns.count)
			attachment_ring(a, 0);
		if (!wait_turn(a, &turns)) {
			err = -ECONNRESET;
			goto out;
		}
	}
	ring->slot[head % GZ_REQUESTS] = *request;
	gz_store_release(&ring->head, head + 1); /* pairs with the worker's acquire: the slot is written */
out:
	lock_give(&a->post);
	if (!err)
		attachment_ring(a, 0);
	return err;
}

void attachment_settle(struct attachment *a)
{
	struct gz_request_ring *ring = &a->channel->requests;
	struct turns turns = { 0 };

	while (gz_load_acquire(&ring->tail) != gz_load(&ring->head)) {
		if (!turns.count)
			attachment_ring(a, 0);
		if (!wait_turn(a, &turns))
			return;
	}
}

void attachment_await(struct attachment *a)
{
	struct gz_request_ring *ring = &a->channel->requests;
	uint32_t upto = gz_load(&ring->head);
	uint64_t until = now_ns() + SHORT_PATIENCE_NS;

	/* The acquire pairs with the worker's release: what was asked for is done. */
	for (uint32_t turns = 1; (int32_t)(gz_load_acquire(&ring->tail) - upto) < 0 && !gz_load(&a->dead); turns++) {
		sched_yield();
		if (turns % 64)
			continue;
		if (now_ns() > until)
			return;
		attach_check();
	}
}

void attachment_announce(struct attachment *a, uint32_t queue)
{
	uint64_t bit = 1ull << queue;
	int fd;

	if (gz_load(&a->announced) & bit)
		return;
	fd = eventq_out(queue);
	if (fd < 0)
		return;
	if (a->pair) {
		pair_announce(a, queue, fd);
		return;
	}
	lock_take(&a->post);
	if (!(gz_load(&a->announced) & bit)) {
		struct gz_message message = { .kind = GZ_MESSAGE_EVENT_QUEUE, .number = queue };

		if (!control_send(a->control_fd, &message, fd))
			gz_or(&a->announced, bit);
	}
	lock_give(&a->post);
}

bool attachment_hears(struct attachment *a, uint32_t queue)
{
	if (a->pair)
		return pair_hears(a, queue);
	return !a->channel || gz_load(&a->announced) >> queue & 1;
}

uint8_t *attachment_block(struct attachment *a, uint32_t block)
{
	uint32_t order = block & 31u;
	uint64_t offset = GZ_BLOCK_OFFSET(block);

	if (order < GZ_BLOCK_ORDER_MIN || order > GZ_BLOCK_ORDER_MAX || offset < a->blocks_from ||
	    offset + (1ull << order) > a->arena_size)
		return NULL;
	return (uint8_t *)a->arena + offset;
}
