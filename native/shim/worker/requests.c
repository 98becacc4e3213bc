/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "worker/requests.h"

#include <errno.h>
#include <sched.h>

#include "core/shim.h"
#include "worker/control.h"

/* A worker answers within microseconds; this long we wait before we believe it cannot. */
#define PATIENCE_NS 1000000000ull
/* And this long where we could go on without. */
#define SHORT_PATIENCE_NS 50000000ull

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
	attachment_check_all();
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

uint32_t request_number(struct attachment *a, struct sock *sock)
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

int request_vouch(struct attachment *a, uint32_t n, int fd)
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

int request_post(struct attachment *a, const struct gz_request *request)
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

void request_settle(struct attachment *a)
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

void request_await(struct attachment *a)
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
		attachment_check_all();
	}
}

void request_await_all(void)
{
	WORKER_EACH(a, i)
	{
		if (a->channel)
			request_await(a);
	}
}
