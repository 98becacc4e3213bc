/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "apps/app.h"

#include <sys/socket.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/bell.h>
#include <gazelle/channel.h>
#include <gazelle/stamp.h>
#include <gazelle/wake.h>
#include <gazelle/worker_page.h>

#include "core/worker.h"
#include "socket/conn.h"
#include "socket/dgram.h"
#include "socket/listener.h"
#include "socket/stream.h"

/* A process always has about this many free socket numbers at hand. */
#define STOCK_LEVEL 64u
/* Processes of a program that are looked at for one that holds a socket: there may be thousands. */
#define HOLDERS_MAX 256u

void app_publish(struct app *app)
{
	/* Until its claim a child goes by its parent's pid, under which these are shown already. */
	if (!app->channel)
		return;
	gz_store(&app->apps->stack->page->apps[app->slot].sockets, app->held);
}

void app_hold(struct app *app, struct conn *conn)
{
	if (app_holds(app, conn->n))
		return;
	app->holds[conn->n / 64] |= 1ull << (conn->n % 64);
	app->held++;
	conn->holders++;
	app->arena->granted[conn->n] = 0;
	app_publish(app);
}

void app_rung(struct conn *conn)
{
	if (conn->udp)
		dgram_rung(conn);
	else
		stream_rung(conn);
}

void app_let_go(struct app *app, uint32_t n)
{
	struct conn *conn = app->arena->conns[n];

	if (!conn || !app_holds(app, n))
		return;
	app->holds[n / 64] &= ~(1ull << (n % 64));
	app->held--;
	app_publish(app);
	if (--conn->holders) {
		/* What it was woken for alone, and did not accept, is for the others now; what it wrote last is to go out. */
		if (conn->listens)
			app_notify(app->arena, n);
		else
			app_rung(conn);
		return;
	}
	if (conn->listens)
		listener_close(conn->listens);
	if (conn->udp)
		dgram_close(conn);
	stream_release(conn);
}

void app_detach_later(struct app *app, const char *why)
{
	if (app->leaving)
		return;
	app->leaving = true;
	app->leave_why = why;
	app->apps->leaving++;
}

void app_detach_arena_later(struct arena *arena, const char *why)
{
	for (struct app *app = arena->apps; app; app = app->arena_next)
		app_detach_later(app, why);
}

/* These of its event queues are to be woken at the end of the turn, if they sleep. */
static void wake_later(struct app *app, uint64_t queues)
{
	struct apps *apps = app->apps;

	app->rung |= queues;
	if (app->rung && !app->in_rung) {
		app->in_rung = true;
		app->rung_next = apps->rung;
		apps->rung = app;
	}
}

/* The first event queue of the app that waits for socket n and sleeps, if nothing wakes it in this turn; 0 = none. */
static uint64_t sleeper(const struct app *app, uint32_t n)
{
	uint64_t queues = gz_load(&app->channel->interest[n]) & ~app->rung;

	for (; queues; queues &= queues - 1)
		if (gz_load(&app->channel->to_app[__builtin_ctzll(queues)].asleep))
			return queues & -queues;
	return 0;
}

/* Wakes one of the processes that sleep, in turns. If one is awake none is woken: it was rung, and looks before it sleeps. */
static void wake_one(struct arena *arena, uint32_t n)
{
	gz_fence(); /* pairs with the sleeper's between declaring and looking again */
	for (uint32_t pass = 0; pass < 2; pass++) {
		uint32_t i = 0;

		for (struct app *app = arena->apps; app; app = app->arena_next, i++) {
			uint64_t queue = 0;

			if ((i < arena->turn) == (pass == 1) && app->channel && app_holds(app, n))
				queue = sleeper(app, n);
			if (!queue)
				continue;
			arena->turn = i + 1;
			wake_later(app, queue);
			return;
		}
	}
}

void app_notify(struct arena *arena, uint32_t n)
{
	bool one = gz_load(&arena->shared->sock[n].app.flags) & GZ_APP_EXCLUSIVE, stamped = false;

	gz_fence(); /* pairs with the application's fence between setting interest and looking at the level */
	for (struct app *app = arena->apps; app; app = app->arena_next) {
		if (!app->channel || !app_holds(app, n))
			continue;
		uint64_t queues = gz_load(&app->channel->interest[n]);

		for (uint64_t left = queues; left; left &= left - 1) {
			struct gz_bell *bell = &app->channel->to_app[__builtin_ctzll(left)];

			if (!stamped && !gz_bell_rings(bell, n)) {
				gz_store(&arena->shared->sock[n].worker.aux[GZ_AUX_READY], gz_stamp());
				stamped = true;
			}
			gz_bell_ring(bell, n);
		}
		wake_later(app, one ? 0 : queues);
	}
	if (one)
		wake_one(arena, n);
}

uint32_t app_holder(const struct arena *arena, uint32_t n)
{
	const struct app *app = arena->apps;

	for (uint32_t i = 0; app && i < HOLDERS_MAX; i++, app = app->arena_next)
		if (!app->carrier && app_holds(app, n))
			return (uint32_t)app->pid;
	return app ? (uint32_t)app->pid : 0;
}

void app_wake(struct app *app, uint32_t cpu)
{
	gz_fence(); /* pairs with the sleeper's fence between declaring and looking again */
	for (uint64_t queues = app->rung; queues; queues &= queues - 1) {
		uint32_t k = (uint32_t)__builtin_ctzll(queues);
		struct gz_bell *bell = &app->channel->to_app[k];

		if (gz_load(&bell->cpu) == cpu + 1) {
			app->apps->told = app;
			app->apps->told_queue = k;
		}
		if (app->queue_fd[k] < 0 || !gz_load(&bell->asleep) || !gz_exchange(&bell->asleep, 0))
			continue;
		if (send(app->queue_fd[k], "", 1, GZ_WAKE_FLAGS) == 1)
			worker_count(app->apps->stack, GZ_COUNT_wakeups_written, 1);
	}
	app->rung = 0;
}

void app_grant(struct app *app)
{
	struct gz_stock *stock = &app->channel->stock;
	uint32_t left = app->stock_head - gz_load_acquire(&stock->tail); /* pairs with the pop's cas */

	while (left < STOCK_LEVEL) {
		uint32_t n = arena_take_sock(app->arena);

		if (!n)
			break;
		app->arena->granted[n] = (uint16_t)(app->slot + 1);
		gz_store(&stock->slot[app->stock_head % GZ_STOCK], n);
		gz_store_release(&stock->head, ++app->stock_head); /* pairs with the pop's acquire */
		left++;
	}
}
