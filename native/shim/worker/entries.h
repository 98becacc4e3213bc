/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A socket that is at every worker of the group, under a number of its own at each: a TCP listener or a UDP socket, so that it does
 * not matter which worker a packet reaches. When a worker dies its entry goes; when the worker is back it is made again.
 */
#ifndef SHIM_ENTRIES_H
#define SHIM_ENTRIES_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/arena.h>
#include <gazelle/channel.h>
#include <gazelle/group_page.h>

struct attachment;
struct sock;

/* The socket at one worker. */
struct entry {
	struct attachment *attachment; /* NULL: no worker there, or it does not take this socket */
	uint32_t n;
	struct gz_accept_queue *queue; /* of a listener; NULL until the worker has opened it */
	uint32_t mask;
};

struct entries_ops {
	uint32_t open_flag; /* GZ_WORKER_* of an entry that the worker has opened */
	/* Asks the worker for an entry, by entries_ask(), unless the worker is not to have one. shim.lock held. */
	void (*open)(struct sock *s, struct attachment *a);
	/* Writes to the entry what the worker must know of the options of s. */
	void (*write_options)(struct sock *s, struct gz_sock *entry);
};

struct entries {
	const struct entries_ops *ops;
	struct sock *next;                  /* all sockets with entries; shim.lock */
	bool both;                          /* the kernel serves it, too */
	bool v6only;                        /* on ::, not for IPv4 */
	struct entry entry[GZ_WORKERS_MAX]; /* by index in the group; shim.lock to change */
};

/* For entries_ops.open: fills in what all requests of s for an entry say; and asks for one. False: it could not be asked. */
void entries_describe(struct sock *s, struct gz_request *request);
bool entries_ask(struct sock *s, struct attachment *a, int fd, struct gz_request *request);

/* Enters s among the sockets that are opened at workers which come (back). shim.lock held, or before main. */
void entries_enter(struct sock *s);

/* Asks all workers, enters s and waits for their answers. 0, 1 (no worker has it), or the error of one. shim.lock not held. */
int entries_open(struct sock *s);

/* Lets go of all entries. shim.lock held. */
void entries_close(struct sock *s);

/* The epoll sets that have s want to hear of its entries. */
void entries_claim(struct sock *s);

/* Options of s have changed. shim.lock not held. */
void entries_write_options(struct sock *s);

/* This event queue wants to hear of all entries of s, or no longer. */
void entries_interest(struct sock *s, uint32_t queue, bool on);

/* Connections may wait that nothing has announced: epoll sets look at all listeners. shim.lock held. */
void entries_activate_listeners(void);

/* A worker died; a worker is there (again). shim.lock held. */
void entries_lost(struct attachment *a);
void entries_restore(struct attachment *a);

#endif
