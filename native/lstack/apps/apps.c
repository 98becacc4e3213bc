/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "apps/apps.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include <gazelle/atomic.h>
#include <gazelle/bell.h>
#include <gazelle/channel.h>
#include <gazelle/group_page.h>
#include <gazelle/kernel_reason.h>
#include <gazelle/worker_page.h>

#include "apps/app.h"
#include "apps/attach.h"
#include "apps/audit.h"
#include "apps/control.h"
#include "apps/detach.h"
#include "apps/flight.h"
#include "apps/requests.h"
#include "arena/remains.h"
#include "core/passed_fd.h"
#include "core/worker.h"
#include "socket/conn.h"
#include "socket/dgram.h"
#include "socket/listener.h"
#include "socket/stream.h"

/* How often applications' own counters are copied to the worker page. */
#define PUBLISH_NS 200000000ull

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

static const struct socket_users users = { .notify = app_notify, .hostile = app_detach_arena_later, .holder = app_holder };

int apps_open(struct protocol_stack *stack)
{
	struct apps *apps = calloc(1, sizeof(*apps));
	int err;

	if (!apps)
		return -ENOMEM;
	apps->stack = stack;
	quota_open(&apps->quota, stack->group->tot_queue_num);
	apps->sockets.stack = stack;
	apps->sockets.users = &users;
	err = attach_open(apps);
	if (err) {
		free(apps);
		return err;
	}
	stack->apps = apps;
	stream_open();
	stream_receive_open();
	dgram_open();
	return 0;
}

uint32_t apps_poll(struct protocol_stack *stack)
{
	struct apps *apps = stack->apps;
	uint32_t done = 0, budget = stack->group->read_connect_number * 64;

	if (apps->sockets.retry)
		stream_retry_all(&apps->sockets);
	for (struct app *app = apps->all; app; app = app->next)
		if (app->channel && !app->leaving && gz_bell_pending(&app->channel->to_worker))
			done += requests_serve(app, budget);
	if (apps->leaving) { /* before the frames of this turn go out: what they said last is among them */
		done++;
		detach_leaving(apps);
	}
	return done;
}

bool apps_wait_here(struct protocol_stack *stack)
{
	struct apps *apps = stack->apps;
	const struct app *app = apps->told;

	apps->told = NULL;
	return app && !app->leaving && gz_bell_pending(&app->channel->to_app[apps->told_queue]);
}

void apps_flush(struct protocol_stack *stack)
{
	struct apps *apps = stack->apps;
	uint32_t cpu = apps->rung ? (uint32_t)sched_getcpu() : 0;

	stream_destroy_finished(&apps->sockets);
	if (apps->leaving)
		detach_leaving(apps);
	remains_work(&apps->arenas);
	passed_fd_look();
	while (apps->rung) {
		struct app *app = apps->rung;

		apps->rung = app->rung_next;
		app->in_rung = false;
		app_wake(app, cpu);
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
		stream_end_overdue(&apps->sockets);
		audit_some(apps);
		flight_look(&apps->landings);
		listener_deliver_overdue(&apps->sockets);
		if (apps->unclaimed_check_ns && !listener_drop_unclaimed(&apps->sockets) &&
		    stack->now_ns - apps->unclaimed_check_ns > 2 * CLAIM_GRACE_NS)
			apps->unclaimed_check_ns = 0;
	}
}

bool apps_pending(struct protocol_stack *stack)
{
	if (stack->apps->sockets.retry || stack->apps->arenas.remains || passed_fd_pending())
		return true;
	for (struct app *app = stack->apps->all; app; app = app->next)
		if (app->channel && gz_bell_pending(&app->channel->to_worker))
			return true;
	return false;
}

void apps_event(struct protocol_stack *stack, void *owner, uint32_t events)
{
	control_event(stack->apps, owner, events);
}

void apps_drain(struct protocol_stack *stack)
{
	struct apps *apps = stack->apps;

	listener_close_all(&apps->sockets);
	for (struct app *app = apps->all; app; app = app->next)
		for (uint32_t w = 0; w < GZ_SOCKS_MAX / 64; w++)
			for (uint64_t bits = app->holds[w]; bits; bits &= bits - 1) {
				struct conn *conn = app->arena->conns[w * 64 + (uint32_t)__builtin_ctzll(bits)];

				if (conn && conn->pcb)
					stream_reset(conn);
			}
}
