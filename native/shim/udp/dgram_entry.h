/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A datagram socket at the workers: one entry at each that takes incoming packets, with a FIFO of whole datagrams either way.
 * dgram.c decides when there are any; dgram_message.c fills and empties them.
 */
#ifndef SHIM_DGRAM_ENTRY_H
#define SHIM_DGRAM_ENTRY_H

#include <stdint.h>

#include <gazelle/arena.h>

#include "udp/dgram_options.h"
#include "core/attachment.h"
#include "worker/entries.h"
#include "core/route.h"
#include "core/sock.h"

/* What a DGRAM socket has beyond its struct sock. */
struct dgram {
	struct entries entries; /* first; s->entries points to it */
	struct endpoint peer;   /* port 0 = not connected; both locks to change */
	_Atomic uint32_t shut;  /* 1 << SHUT_RD | 1 << SHUT_WR */
	uint32_t turn;          /* where the next read looks first; rx */
	uint32_t tx_slot;       /* the worker that sends; tx */
	struct dgram_options options;
	struct endpoint asked; /* the destination route_connect was asked about last, and what it said; tx */
	enum route route;
};

static inline struct dgram *dgram_of(struct sock *s)
{
	return (struct dgram *)s->entries;
}

/* The entry at worker i, NULL if there is none or it failed. Any thread. */
struct gz_sock *dgram_entry_at(struct sock *s, uint32_t i, struct attachment **a);

/* Asks all workers for an entry and waits for their answers. 0, or an error of one of them; -ENETDOWN: there is none. Both locks. */
int dgram_entries_open(struct sock *s);

/* s has entries from now on, none of which is open yet. */
void dgram_entries_begin(struct sock *s, struct dgram *d, bool both, bool v6only);

/*
 * snapshot.c: becomes s->entries of a socket that another process, or this one before an exec, had. Its entries are the caller's to
 * fill in; the options follow when a descriptor is known. NULL: no memory.
 */
struct entries *dgram_inherit(struct sock *s, bool both, const struct endpoint *peer, uint32_t shut);

/*
 * dgram.c: whether the kernel's side of s is connected to itself, so that others hear on its port; makes it so, or ends that. It has
 * s's address only while it is not. 0 or -errno.
 */
bool dgram_is_aside(const struct sock *s, int fd);
int dgram_move_aside(struct sock *s, int fd, bool aside);

/* Lets go of all of them. Both locks. */
void dgram_entries_close(struct sock *s);

/* The peer of s has changed: tells the workers. Both locks. */
void dgram_entries_peer(struct sock *s);

/* The options of s have changed: tells the workers. Both locks. */
void dgram_entries_options(struct sock *s);

/* The ICMP error that waits to be reported, a positive errno, 0 = none. `take`: this is the report. Any thread. */
int dgram_error(struct sock *s, bool take);

#endif
