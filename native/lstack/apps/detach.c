/* SPDX-License-Identifier: MulanPSL-2.0 */
/* One with requests: a request may be that the ended are detached, and what the ended asked for last is served here. */
#include "apps/detach.h"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gazelle/atomic.h>
#include <gazelle/channel.h>
#include <gazelle/worker_page.h>

#include "apps/app.h"
#include "apps/flight.h"
#include "apps/requests.h"
#include "apps/vouch_inbox.h"
#include "arena/remains.h"
#include "core/log.h"
#include "core/passed_fd.h"
#include "core/worker.h"
#include "socket/conn.h"
#include "socket/stream.h"
#include "socket/trace.h"

/* As a process of the arena still. Nobody waits for what one has to say that broke the rules. */
static void let_go_of_all(struct app *app)
{
	for (uint32_t w = 0; w < GZ_SOCKS_MAX / 64; w++)
		for (uint64_t bits = app->holds[w]; bits; bits &= bits - 1) {
			uint32_t n = w * 64 + (uint32_t)__builtin_ctzll(bits);
			struct conn *conn = app->arena->conns[n];

			if (app->leave_why && conn->holders == 1 && conn->pcb)
				stream_reset(conn);
			app_let_go(app, n);
		}
}

/* What a connection may have to send again. */
static uint32_t unsent_block(const struct conn *conn)
{
	return conn->tx_block;
}

static void leave_arena(struct app *app)
{
	struct apps *apps = app->apps;
	struct arena *arena = app->arena;

	requests_finish(app);
	let_go_of_all(app);
	for (uint32_t n = 1; n < arena->high; n++)
		if (arena->granted[n] == app->slot + 1)
			arena_give_sock(arena, n);
	struct app **p = &arena->apps;
	while (*p != app)
		p = &(*p)->arena_next;
	*p = app->arena_next;
	arena->seen |= !app->gone;
	if (arena->apps)
		apps->unclaimed_check_ns = apps->stack->now_ns;
	else
		remains_begin(arena, !arena->seen, unsent_block);
	arena_put(arena);
}

/* Takes it out of the lists of processes. */
static void strike_out(struct app *app)
{
	struct apps *apps = app->apps;

	if (app->prev)
		app->prev->next = app->next;
	else
		apps->all = app->next;
	if (app->next)
		app->next->prev = app->prev;
	if (app->in_rung) {
		struct app **p = &apps->rung;
		while (*p != app)
			p = &(*p)->rung_next;
		*p = app->rung_next;
	}
}

static void detach(struct app *app)
{
	struct apps *apps = app->apps;
	struct arena *arena = app->arena;

	(void)epoll_ctl(apps->stack->epoll_fd, EPOLL_CTL_DEL, app->control_fd, NULL);
	if (flight_end(&apps->landings, app->user, app->control_fd, &app->flying))
		app->files--; /* the control socket's, which is still open */
	else
		passed_fd_close(app->control_fd, app->user->uid);
	vouch_inbox_clear(app);
	if (app->tracer)
		trace_end(apps->stack);
	if (arena)
		leave_arena(app);
	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++)
		if (app->queue_fd[k] >= 0)
			passed_fd_close(app->queue_fd[k], app->user->uid);
	if (app->channel)
		munmap(app->channel, sizeof(*app->channel));
	app->channel = NULL;
	app->rung = 0;
	if (apps->told == app)
		apps->told = NULL;
	gz_store_release(&apps->stack->page->apps[app->slot].pid, 0);
	apps->free_slot[apps->free_slots++] = (uint16_t)app->slot;
	while (app->files--)
		quota_give(app->user, QUOTA_FILES);
	quota_give(app->user, QUOTA_PROCESSES);
	quota_let_go(app->user);
	apps->count--;
	worker_gauge(apps->stack, GZ_COUNT_attachments, apps->count);
	strike_out(app);
	app->next = apps->dead;
	apps->dead = app;
}

void detach_leaving(struct apps *apps)
{
	struct app *app = apps->all, *next;

	for (; app; app = next) {
		next = app->next;
		if (!app->leaving)
			continue;
		apps->leaving--;
		if (app->leave_why) {
			log_warn("process %d detached: %s", (int)app->pid, app->leave_why);
			worker_count(apps->stack, GZ_COUNT_detached_hostile, 1);
		}
		detach(app);
	}
}
