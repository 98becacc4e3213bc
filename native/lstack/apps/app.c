/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/bell.h>
#include <gazelle/channel.h>
#include <gazelle/kernel_reason.h>
#include <gazelle/wake.h>
#include <gazelle/worker_page.h>

#include "apps/app.h"
#include "apps/attach.h"
#include "apps/flight.h"
#include "apps/audit.h"
#include "socket/conn.h"
#include "socket/dgram.h"
#include "socket/listener.h"
#include "core/log.h"
#include "apps/orphan.h"
#include "apps/remains.h"
#include "core/worker.h"

/* How often applications' own counters are copied to the worker page. */
#define PUBLISH_NS 200000000ull
/* For this long after its start a worker answers no SYN by RST: listeners are coming back. */
#define YOUNG_NS 1000000000ull
/* A process always has about this many free socket numbers at hand. */
#define STOCK_LEVEL 64u

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
			app_notify(app->apps, app->arena, n);
		else
			conn_rung(conn);
		return;
	}
	if (conn->listens)
		listener_close(conn->listens);
	conn_release(conn);
}

void app_doom(struct app *app, const char *why)
{
	if (app->doomed)
		return;
	app->doomed = true;
	app->doom = why;
	app->apps->doomed++;
}

void app_doom_arena(struct apps *apps, struct arena *arena, const char *why)
{
	(void)apps;
	for (struct app *app = arena->apps; app; app = app->arena_next)
		app_doom(app, why);
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

/* One of those who sleep, in turns. Who is awake was rung and looks before it sleeps, so none is needed then. */
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

void app_notify(struct apps *apps, struct arena *arena, uint32_t n)
{
	bool one = gz_load(&arena->shared->sock[n].app.flags) & GZ_APP_EXCLUSIVE;

	(void)apps;
	gz_fence(); /* pairs with the application's fence between setting interest and looking at the level */
	for (struct app *app = arena->apps; app; app = app->arena_next) {
		if (!app->channel || !app_holds(app, n))
			continue;
		uint64_t queues = gz_load(&app->channel->interest[n]);

		for (uint64_t left = queues; left; left &= left - 1)
			gz_bell_ring(&app->channel->to_app[__builtin_ctzll(left)], n);
		wake_later(app, one ? 0 : queues);
	}
	if (one)
		wake_one(arena, n);
}

/* Wakes the event queues rung in this turn that have declared themselves asleep; `cpu` is ours. */
static void wake(struct app *app, uint32_t cpu)
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

static bool granted(const struct app *app, uint32_t n)
{
	return app->arena->granted[n] == app->slot + 1 && !app->arena->conns[n];
}

static void detach_doomed(struct apps *apps);

/* Whoever has ended has let go of his ports when this returns. */
static void look_for_ended(struct app *asks)
{
	if (asks->doomed)
		return; /* it is being detached itself */
	attach_look(asks->apps);
	if (!asks->doomed)
		detach_doomed(asks->apps);
}

static void serve(struct app *app, const struct gz_request *request)
{
	uint32_t n = request->sock;

	if (request->op == GZ_REQUEST_LOOK) {
		look_for_ended(app);
		return;
	}
	if (!n || n >= GZ_SOCKS_MAX) {
		app_doom(app, "socket number out of range");
		return;
	}
	switch (request->op) {
	case GZ_REQUEST_LISTEN:
		if (granted(app, n))
			listener_open(app, request);
		else
			app_doom(app, "listen on a number not granted");
		break;
	case GZ_REQUEST_CONNECT:
		if (granted(app, n))
			conn_connect(app, request);
		else
			app_doom(app, "connect on a number not granted");
		break;
	case GZ_REQUEST_BIND:
		if (granted(app, n) || app_holds(app, n))
			dgram_bind(app, request);
		else
			app_doom(app, "bind on a number not granted");
		break;
	case GZ_REQUEST_BACKLOG:
		if (app_holds(app, n))
			listener_set_backlog(app, request);
		break;
	case GZ_REQUEST_CLAIM:
		listener_claim(app, n);
		break;
	case GZ_REQUEST_RELEASE:
		app_let_go(app, n);
		break;
	default:
		app_doom(app, "unknown request");
	}
}

void apps_icmp(const struct frame *frame, const uint8_t *icmp)
{
	dgram_icmp(frame, icmp);
}

/* How many requests wait; more than the ring holds is nonsense. */
static uint32_t requests_waiting(const struct app *app)
{
	/* Pairs with the application's release: slots are written. */
	return gz_load_acquire(&app->channel->requests.head) - app->request_tail;
}

static void serve_next(struct app *app)
{
	struct gz_request_ring *ring = &app->channel->requests;
	struct gz_request request;

	memcpy(&request, &ring->slot[app->request_tail % GZ_REQUESTS], sizeof(request));
	__asm__ __volatile__("" : : "g"(&request) : "memory"); /* our copy is read from here on, not theirs */
	app->request_tail++;
	worker_count(app->apps->stack, GZ_COUNT_requests, 1);
	serve(app, &request);
	/* Pairs with the producer's acquire: the slot is free, and what was asked for is done. */
	gz_store_release(&ring->tail, app->request_tail);
}

/* Requests in their order, at most rpc_number per turn. */
static void serve_requests(struct app *app)
{
	uint32_t waiting = requests_waiting(app), budget = app->apps->stack->group->rpc_number;

	if (waiting > GZ_REQUESTS) {
		app_doom(app, "impossible request index");
		return;
	}
	for (uint32_t i = 0; i < waiting && i < budget && !app->doomed; i++)
		serve_next(app);
	if (waiting > budget)
		gz_bell_ring(&app->channel->to_worker, 0);
	app_grant(app);
}

static void on_last_bell(void *ctx, uint32_t n)
{
	struct app *app = ctx;

	if (n && app_holds(app, n) && !app->arena->conns[n]->listens)
		conn_rung(app->arena->conns[n]);
}

void app_finish(struct app *app)
{
	uint32_t waiting = app->channel && !app->doom ? requests_waiting(app) : 0;

	for (uint32_t i = 0; i < waiting && waiting <= GZ_REQUESTS; i++)
		serve_next(app);
	/* What it wrote last: another process may hold the connection, so that letting go of it does not send that. */
	if (app->channel && !app->doom)
		(void)gz_bell_take(&app->channel->to_worker, GZ_SOCKS_MAX, on_last_bell, app);
}

static void on_bell(void *ctx, uint32_t n)
{
	struct app *app = ctx;

	if (app->doomed)
		return;
	if (!n)
		serve_requests(app);
	else if (app_holds(app, n) && !app->arena->conns[n]->listens)
		conn_rung(app->arena->conns[n]);
}

static void publish_counters(struct apps *apps)
{
	for (struct app *app = apps->all; app; app = app->next) {
		struct gz_app_stat *stat = &apps->stack->page->apps[app->slot];

		if (!app->channel)
			continue;
		for (uint32_t i = 0; i < GZ_KERNEL_REASONS; i++)
			gz_store(&stat->kernel[i], gz_load(&app->channel->kernel_sockets[i]));
		uint32_t refused = gz_load(&app->channel->pairs_refused);

		worker_count(apps->stack, GZ_COUNT_pairs_refused, (uint32_t)(refused - app->pairs_refused));
		app->pairs_refused = refused;
		gz_store(&stat->paired, gz_load(&app->channel->pair_sockets));
		gz_store(&stat->arena_kb, (uint32_t)(app->arena->block_bytes >> 10));
	}
	worker_gauge(apps->stack, GZ_COUNT_attachments, apps->count);
}

int apps_open(struct protocol_stack *stack)
{
	struct apps *apps = calloc(1, sizeof(*apps));
	int err;

	if (!apps)
		return -ENOMEM;
	apps->stack = stack;
	quota_open(&apps->quota, stack->group->tot_queue_num);
	apps->started_ns = stack->now_ns;
	err = attach_open(apps);
	if (err) {
		free(apps);
		return err;
	}
	stack->apps = apps;
	conn_receive_open();
	return 0;
}

static void detach_doomed(struct apps *apps)
{
	struct app *app = apps->all, *next;

	for (; app; app = next) {
		next = app->next;
		if (!app->doomed)
			continue;
		apps->doomed--;
		if (app->doom) {
			log_warn("process %d detached: %s", (int)app->pid, app->doom);
			worker_count(apps->stack, GZ_COUNT_detached_hostile, 1);
		}
		app_detach(app);
	}
}

uint32_t apps_poll(struct protocol_stack *stack)
{
	struct apps *apps = stack->apps;
	uint32_t done = 0, budget = stack->group->read_connect_number * 64;

	if (apps->retry)
		conn_retry_all(apps);
	for (struct app *app = apps->all; app; app = app->next)
		if (app->channel && !app->doomed && gz_bell_pending(&app->channel->to_worker))
			done += gz_bell_take(&app->channel->to_worker, budget, on_bell, app);
	if (apps->doomed) { /* before the frames of this turn go out: what they said last is among them */
		done++;
		detach_doomed(apps);
	}
	return done;
}

bool apps_wait_here(struct protocol_stack *stack)
{
	struct apps *apps = stack->apps;
	const struct app *app = apps->told;

	apps->told = NULL;
	return app && !app->doomed && gz_bell_pending(&app->channel->to_app[apps->told_queue]);
}

void apps_flush(struct protocol_stack *stack)
{
	struct apps *apps = stack->apps;
	uint32_t cpu = apps->rung ? (uint32_t)sched_getcpu() : 0;

	conn_destroy_finished(apps);
	if (apps->doomed)
		detach_doomed(apps);
	remains_work(apps);
	while (apps->rung) {
		struct app *app = apps->rung;

		apps->rung = app->rung_next;
		app->in_rung = false;
		wake(app, cpu);
	}
	while (apps->dead) {
		struct app *app = apps->dead;

		apps->dead = app->next;
		free(app);
	}
	if (stack->now_ns - apps->published_ns >= PUBLISH_NS) {
		apps->published_ns = stack->now_ns;
		publish_counters(apps);
		attach_drop_silent(apps);
		orphans_end_overdue(apps);
		audit_some(apps);
		flight_look(&apps->landings);
		listener_deliver_overdue(apps);
		if (apps->unclaimed_check_ns && !listener_drop_unclaimed(apps) &&
		    stack->now_ns - apps->unclaimed_check_ns > 2 * CLAIM_GRACE_NS)
			apps->unclaimed_check_ns = 0;
	}
}

bool apps_pending(struct protocol_stack *stack)
{
	if (stack->apps->retry || stack->apps->remains)
		return true;
	for (struct app *app = stack->apps->all; app; app = app->next)
		if (app->channel && gz_bell_pending(&app->channel->to_worker))
			return true;
	return false;
}

void apps_event(struct protocol_stack *stack, void *owner, uint32_t events)
{
	attach_event(stack->apps, owner, events);
}

void apps_drain(struct protocol_stack *stack)
{
	struct apps *apps = stack->apps;

	listener_close_all(apps);
	for (struct app *app = apps->all; app; app = app->next)
		for (uint32_t w = 0; w < GZ_SOCKS_MAX / 64; w++)
			for (uint64_t bits = app->holds[w]; bits; bits &= bits - 1) {
				struct conn *conn = app->arena->conns[w * 64 + (uint32_t)__builtin_ctzll(bits)];

				if (conn && conn->pcb)
					conn_reset(conn);
			}
}

bool apps_expect_listener(struct protocol_stack *stack, uint16_t port)
{
	(void)port;
	return stack->now_ns - stack->apps->started_ns < YOUNG_NS;
}
