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

struct arena;
struct conn;
struct sockets;
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
	struct sockets *sockets;
	struct tcp_pcb *pcb;
	struct listener_member *members, *turn;
	uint8_t addr[16];
	uint16_t port;
	bool v6only;
	uint32_t page_slot;
	struct user *payer; /* of the line in the page */
	bool full;          /* every member's queue is: lwIP drops SYNs meanwhile */
};

/* GZ_REQUEST_LISTEN, by the process with this slot. sock->vouch says whose the port is. 0, or the errno for the application. */
int listener_open(struct conn *sock, const struct gz_request *request, uint32_t slot);

/* GZ_REQUEST_BACKLOG. */
void listener_set_backlog(struct conn *sock, uint32_t backlog);

/* The kernel socket that vouched for one of them, by its descriptor here, may be no listener any more. */
void listener_changed(struct sockets *sockets, int fd);

/*
 * The listener for connections to this address (the stack's or loopback) and port, as the worker page and the kernel say it.
 * NULL: none. `netns`: the namespace of the process that asks, whose loopback is meant.
 */
struct listener_member *listener_find(struct sockets *sockets, const uint8_t addr[16], uint16_t port, uint64_t netns);

/* The last holder of a listening socket let go: unaccepted connections are reset. */
void listener_close(struct listener_member *member);

/* GZ_REQUEST_CLAIM: a process popped this connection, and its listener has no more to do with it. */
void listener_claim(struct conn *conn);

/* Delivers the deferred connections (TCP_DEFER_ACCEPT) that have waited long enough. Now and then. */
void listener_deliver_overdue(struct sockets *sockets);

/*
 * After a process died: connections that were popped but not claimed within CLAIM_GRACE are reset, for it was the dead process
 * that popped them. Returns true while some are still within their grace.
 */
bool listener_drop_unclaimed(struct sockets *sockets);
#define CLAIM_GRACE_NS 1000000000ull

/* Stops them all (drain). */
void listener_close_all(struct sockets *sockets);

#endif
