/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A datagram socket at the workers: one entry at each that takes incoming packets, with a FIFO of whole datagrams either way.
 * dgram.c decides when there are any; dgram_message.c fills and empties them.
 */
#ifndef SHIM_DGRAM_ENTRY_H
#define SHIM_DGRAM_ENTRY_H

#include <stdint.h>

#include <gazelle/arena.h>

#include "udp/dgram_sock.h"

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

/* Lets go of all of them. Both locks. */
void dgram_entries_close(struct sock *s);

/* The peer of s has changed: tells the workers. Both locks. */
void dgram_entries_peer(struct sock *s);

/* The options of s have changed: tells the workers. Both locks. */
void dgram_entries_options(struct sock *s);

/* The ICMP error that waits to be reported, a positive errno, 0 = none. `take`: this is the report. Any thread. */
int dgram_error(struct sock *s, bool take);

#endif
