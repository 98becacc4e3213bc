/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * An attached process as the worker knows it, and the table of all of them: the sockets it holds, its stock of free numbers,
 * its bells. attach.c makes one, detach.c ends it.
 */
#ifndef LSTACK_APP_H
#define LSTACK_APP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <gazelle/arena.h>
#include <gazelle/channel.h>
#include <gazelle/worker_page.h>

#include "arena/arena.h"
#include "arena/quota.h"
#include "socket/sockets.h"

struct conn;
struct protocol_stack;
struct vouch;

struct app {
	struct apps *apps;
	struct app *next, *prev; /* apps->all */
	struct app *arena_next;  /* arena->apps */
	struct app *rung_next;   /* apps->rung */
	struct arena *arena;
	struct gz_channel *channel; /* NULL: not claimed yet (a fork that has not used a socket) */
	int control_fd, channel_fd;
	int queue_fd[GZ_EVENT_QUEUES]; /* what wakes its event queues (wake.h); -1 */
	uint64_t rung;                 /* event queues rung in this turn */
	bool tracer;                   /* GZ_MESSAGE_TRACE */
	bool carrier;                  /* no process: a socket on its way, which only holds (GZ_MESSAGE_CARRY) */
	uint32_t carries;              /* that one; 0: none of ours, the note says which */
	uint64_t end_cookie; /* SO_COOKIE of the other end of control_fd, if we made it: a process that shows that end has it */
	char note[64];         /* a carrier's, for the process that adopts the socket */
	bool in_rung, leaving; /* leaving: detach at the end of the turn; hostile or gone */
	bool gone;             /* its end of the control socket was closed: it has ended */
	const char *leave_why; /* why, for the log */
	pid_t pid;
	struct user *user;     /* whose it is; a fork's is its parent's */
	uint64_t since_ns;     /* when it came */
	struct vouch *vouches; /* came, and the requests they are for have not */
	uint32_t slot;         /* page->apps[] and attach_id */
	uint32_t files;        /* descriptors of ours it has: control_fd, queue_fd */
	uint32_t flying;       /* descriptors sent to it that it may not have taken yet */
	uint32_t held;         /* sockets it holds */
	uint32_t request_tail; /* ours; the shared one is for the application to see */
	uint32_t stock_head;
	uint32_t pairs_refused;            /* of its channel, as counted so far */
	uint64_t holds[GZ_SOCKS_MAX / 64]; /* bit n: it holds socket n */
};

struct apps {
	struct protocol_stack *stack;
	struct quota quota;
	struct arenas arenas;
	struct sockets sockets;
	struct landing *landings; /* control sockets of detached processes with something under way */
	int listen_fd;            /* attach socket */
	int spare_fd; /* closed for a moment when there is no descriptor left, to refuse a process with a reason */
	struct app *all;
	struct app *rung; /* to look at in apps_flush */
	struct app *told; /* one that was last rung on our CPU, in this turn or before, and its event queue; NULL: none */
	uint32_t told_queue;
	struct app *dead;  /* freed in apps_flush: their pointers may still stand in the loop's event array */
	uint32_t leaving;  /* how many of `all` are */
	uint32_t count;    /* attached processes */
	uint32_t programs; /* so far: the number of the last one */
	uint32_t free_slots;
	uint16_t free_slot[GZ_APPS_MAX]; /* of page->apps[], a stack */
	uint64_t published_ns, unclaimed_check_ns;
	uint64_t asked_ns; /* ask.c: the turn that had the last answer */
};

static inline bool app_holds(const struct app *app, uint32_t n)
{
	return app->holds[n / 64] >> (n % 64) & 1;
}

/* This process now holds socket n, whose conn counts it. */
void app_hold(struct app *app, struct conn *conn);

/* Shows in the worker page how many it holds. */
void app_publish(struct app *app);

/* A process rang for this connection or datagram socket. */
void app_rung(struct conn *conn);

/* It no longer does; the last one closes the connection or listener. */
void app_let_go(struct app *app, uint32_t n);

/* Marks a process that broke the protocol (or is gone); it is detached at the end of the turn. */
void app_detach_later(struct app *app, const char *why);

/* Marks every process of an arena: its memory was tampered with. */
void app_detach_arena_later(struct arena *arena, const char *why);

/* Wakes the event queues rung in this turn that have declared themselves asleep; `cpu` is ours. */
void app_wake(struct app *app, uint32_t cpu);

/* Socket n of this arena changed its level: rings the interested event queues of every process that holds it. */
void app_notify(struct arena *arena, uint32_t n);

/* The pid of one of the processes that hold socket n, or of another of the program if it has very many; 0: none. */
uint32_t app_holder(const struct arena *arena, uint32_t n);

/* Tops up the process's stock of free socket numbers. */
void app_grant(struct app *app);

#endif
