/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gazelle/attach.h>

#include "worker/attach.h"
#include "worker/control.h"
#include "core/eventq.h"
#include "worker/program.h"
#include "worker/link.h"
#include "samehost/pair.h"
#include "core/real.h"
#include "core/shim.h"

/* A worker answers within microseconds; this long we insist before we believe it cannot. */
#define PATIENCE_NS 1000000000ull
/* And this long where we could go on without. */
#define SHORT_PATIENCE_NS 50000000ull

void link_wake(struct link *link, uint32_t sleep)
{
	struct gz_message message = { .kind = GZ_MESSAGE_WAKE };

	/* Noted after it was sent: another thread that finds it noted relies on it. */
	if (!control_send(link->wake_fd, &message, -1))
		gz_store(&link->woken, sleep);
}

struct turns {
	uint32_t count;
	struct patience patience;
};

/* One turn of waiting for a worker that is busy but there. False: it died, or the patience has ended. */
static bool wait_turn(struct link *link, struct turns *turns)
{
	if (gz_load(&link->dead))
		return false;
	sched_yield();
	if (++turns->count % 64)
		return true;
	if (turns->count == 64)
		patience_begin(&turns->patience, PATIENCE_NS);
	else if (!patience_left(&turns->patience, link->control_fd))
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

uint32_t link_take_number(struct link *link, struct sock *sock)
{
	uint32_t n = pop_stock(&link->channel->stock);
	struct turns turns = { 0 };

	while (!n) {
		if (!turns.count)
			link_ring(link, 0); /* the worker tops up the stock whenever it looks at the request ring */
		if (!wait_turn(link, &turns))
			return 0;
		n = pop_stock(&link->channel->stock);
	}
	link_hold(link, n, sock);
	return n;
}

void link_hold(struct link *link, uint32_t n, struct sock *sock)
{
	gz_store_release(&link->socks[n % GZ_SOCKS_MAX], sock);
	gz_add(&link->used, 1);
	if (link->pair)
		shim_count_paired(1);
}

void link_let_go(struct link *link, uint32_t n)
{
	struct gz_request request = { .op = GZ_REQUEST_RELEASE, .sock = n };

	gz_store(&link->socks[n % GZ_SOCKS_MAX], NULL);
	gz_add(&link->used, (uint32_t)-1);
	if (link->pair)
		shim_count_paired(-1);
	if (gz_load(&link->dead))
		return;
	if (link->pair) {
		pair_let_go(link, n);
		return;
	}
	if (!link->channel) {
		program_dropped(link, n);
		return;
	}
	gz_store(&link->channel->interest[n % GZ_SOCKS_MAX], 0);
	(void)link_post(link, &request);
}

int link_vouch(struct link *link, uint32_t n, int fd)
{
	struct gz_message message = { .kind = GZ_MESSAGE_VOUCH, .number = n };
	struct turns turns = { 0 };
	int err;

	do {
		lock_take(&link->post);
		err = control_send(link->control_fd, &message, fd);
		lock_give(&link->post);
		/* No room, or too many descriptors of this user on their way: the worker reads. */
	} while ((err == -EAGAIN || err == -ETOOMANYREFS) && wait_turn(link, &turns));
	return err;
}

int link_post(struct link *link, const struct gz_request *request)
{
	struct gz_request_ring *ring = &link->channel->requests;
	struct turns turns = { 0 };
	uint32_t head;
	int err = 0;

	lock_take(&link->post);
	head = gz_load(&ring->head);
	/* The acquire pairs with the worker's release of the tail: it has read that slot. */
	while (head - gz_load_acquire(&ring->tail) >= GZ_REQUESTS) {
		if (!turns.count)
			link_ring(link, 0);
		if (!wait_turn(link, &turns)) {
			err = -ECONNRESET;
			goto out;
		}
	}
	ring->slot[head % GZ_REQUESTS] = *request;
	gz_store_release(&ring->head, head + 1); /* pairs with the worker's acquire: the slot is written */
out:
	lock_give(&link->post);
	if (!err)
		link_ring(link, 0);
	return err;
}

void link_settle(struct link *link)
{
	struct gz_request_ring *ring = &link->channel->requests;
	struct turns turns = { 0 };

	while (gz_load_acquire(&ring->tail) != gz_load(&ring->head)) {
		if (!turns.count)
			link_ring(link, 0);
		if (!wait_turn(link, &turns))
			return;
	}
}

void link_await(struct link *link)
{
	struct gz_request_ring *ring = &link->channel->requests;
	uint32_t upto = gz_load(&ring->head);
	uint64_t until = now_ns() + SHORT_PATIENCE_NS;

	/* The acquire pairs with the worker's release: what was asked for is done. */
	for (uint32_t turns = 1; (int32_t)(gz_load_acquire(&ring->tail) - upto) < 0 && !gz_load(&link->dead); turns++) {
		sched_yield();
		if (turns % 64)
			continue;
		if (now_ns() > until)
			return;
		attach_check();
	}
}

void link_announce(struct link *link, uint32_t queue)
{
	uint64_t bit = 1ull << queue;
	int fd;

	if (gz_load(&link->announced) & bit)
		return;
	fd = eventq_out(queue);
	if (fd < 0)
		return;
	if (link->pair) {
		pair_announce(link, queue, fd);
		return;
	}
	lock_take(&link->post);
	if (!(gz_load(&link->announced) & bit)) {
		struct gz_message message = { .kind = GZ_MESSAGE_EVENT_QUEUE, .number = queue };

		if (!control_send(link->control_fd, &message, fd))
			gz_or(&link->announced, bit);
	}
	lock_give(&link->post);
}

bool link_hears(struct link *link, uint32_t queue)
{
	if (link->pair)
		return pair_hears(link, queue);
	return !link->channel || gz_load(&link->announced) >> queue & 1;
}

uint8_t *link_block(struct link *link, uint32_t block)
{
	uint32_t order = block & 31u;
	uint64_t offset = GZ_BLOCK_OFFSET(block);

	if (order < GZ_BLOCK_ORDER_MIN || order > GZ_BLOCK_ORDER_MAX || offset < link->blocks_from ||
	    offset + (1ull << order) > link->arena_size)
		return NULL;
	return (uint8_t *)link->arena + offset;
}
