/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A listening address: one lwIP listener and the sockets that listen there. Usually one; several if the kernel let them (of
 * one user, by SO_REUSEPORT, or one kernel socket in several programs), which then take turns. Who may is vouch.h's to say.
 */
#ifndef LSTACK_LISTENER_H
#define LSTACK_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/arena.h>
#include <gazelle/channel.h>

struct app;
struct apps;
struct arena;
struct conn;
struct tcp_pcb;
struct user;

struct listener;

/* One listening socket. Its accept queue is in its arena; `queued` are the connections not yet claimed. */
struct listener_member {
	struct listener *listener;
	struct listener_member *next;
	struct conn *sock;                 /* the listener's own entry */
	struct conn *queued, *queued_tail; /* oldest first */
	struct conn *deferred;             /* TCP_DEFER_ACCEPT: connected, and nothing received yet */
	struct gz_accept_queue *queue;
	uint32_t block, mask, head, backlog, deferred_count;
	uint32_t wish; /* the backlog as the application said it */
};

struct listener {
	struct listener *next;
	struct apps *apps;
	struct tcp_pcb *pcb;
	struct listener_member *members, *turn;
	uint8_t addr[16];
	uint16_t port;
	bool v6only;
	uint32_t page_slot;
	struct user *payer; /* of the line in the page */
	bool full;          /* every member's queue is: lwIP drops SYNs meanwhile */
};

/* GZ_REQUEST_LISTEN and GZ_REQUEST_BACKLOG. Failure is told through the socket's end. */
void listener_open(struct app *app, const struct gz_request *request);
void listener_set_backlog(struct app *app, const struct gz_request *request);

/* The kernel socket that vouched for one of them, by its descriptor here, may be no listener any more. */
void listener_changed(struct apps *apps, int fd);

/*
 * Who listens for connections to this address (the stack's or loopback) and port, as the worker page and the kernel say it. NULL:
 * nobody. `netns`: of the caller; a loopback address is that of his namespace.
 */
struct listener_member *listener_find(struct apps *apps, const uint8_t addr[16], uint16_t port, uint64_t netns);

/* The last holder of a listening socket let go: unaccepted connections are reset. */
void listener_close(struct listener_member *member);

/* GZ_REQUEST_CLAIM: a process popped this connection and now holds it. */
void listener_claim(struct app *app, uint32_t n);

/*
 * A deferred connection: its first bytes, or its FIN, have come, or it has waited long enough, so it may be accepted; it
 * broke off, and nobody will ever hear of it.
 */
void listener_deliver(struct conn *conn);
void listener_forget_deferred(struct conn *conn);

/* Delivers those that have waited long enough. Now and then. */
void listener_deliver_overdue(struct apps *apps);

/* Queue room may have come back. */
void listener_refresh(struct listener_member *member);

/*
 * After a process died: connections somebody popped but nobody claimed within CLAIM_GRACE are reset, for the popper is the
 * dead one. Returns true while some are still within their grace.
 */
bool listener_drop_unclaimed(struct apps *apps);
#define CLAIM_GRACE_NS 1000000000ull

/* Stops them all (drain). */
void listener_close_all(struct apps *apps);

#endif
