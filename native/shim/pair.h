/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Same host: a link to another attached program instead of a worker. A worker introduces the two; from then on connections
 * are made, used and closed in the memory the two share, with no worker, no packet and, under load, no syscall. What
 * stream.c needs of a socket is laid out as a worker lays it out, so bytes move by the same code on both paths.
 *
 * Side 0 connects, side 1 listens; two programs that do both to each other have two pairs. The processes of one side (forks)
 * hold a connection together: each has a bit in the end's GZ_AUX_HOLDERS, the last one to go closes it.
 */
#ifndef SHIM_PAIR_H
#define SHIM_PAIR_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/abi.h>
#include <gazelle/attach.h>

struct endpoint;
struct link;
struct listener;
struct sock;

/*
 * connect() to an address of this host. 0: s is on number *n of *link, connected. 1: no attached program listens there, or
 * it cannot be reached this way. Both locks of s held. `local`: where s is bound now.
 */
int pair_connect(const struct endpoint *local, const struct endpoint *to, struct sock *s, struct link **link, uint32_t *n);

/*
 * True if pair_connect() to there will find a program and a free number. Asked before the socket takes an address of the
 * stack's: bound to one, the kernel could not connect it any more. A process does not reach itself. No locks of shim held.
 */
bool pair_reaches(const struct endpoint *to);

/* True if an attached program listens there, as far as the workers' pages tell. */
bool pair_listens(const struct endpoint *to);

/* PAIRED came over a worker's control socket. Takes the descriptors. shim.lock held. */
void pair_arrived(const struct gz_message *message, int *fds, int count);

/* What came over a pair's control socket. shim.lock held. */
void pair_message(struct link *link, const struct gz_message *message, int *fds, int count);

/* Another process of our family has ended: what it held on our sides of pairs is let go. shim.lock held. */
void pair_family_lost(uint32_t attach_id);

/* Entry n as stream.c wants it: the two ends by our view, and our name of the connection. */
struct gz_sock *pair_entry(struct link *link, uint32_t n, struct gz_end **me, struct gz_end **peer);

/* Number n changed: rings the event queues of the other side that want to hear of it. */
void pair_ring(struct link *link, uint32_t n);

/* This process lets go of number n. */
void pair_let_go(struct link *link, uint32_t n);

/* Connections pushed to us go to their listeners' `waiting`. Cheap when there are none. */
void pair_take_arrivals(void);

/* Listeners: one waiting connection (false: none); all of them are refused; a queue wants to hear of arrivals. */
bool pair_accept(struct listener *listener, struct link **link, uint32_t *n);
void pair_refuse_waiting(struct listener *listener);
void pair_listen_interest(uint32_t queue);

/* Levels of a stream whose peer has died: it ended as a process's sockets end. */
uint32_t pair_orphan_flags(const struct sock *s);

/* The other end takes no more bytes: closed, or shut down both ways. */
bool pair_nobody_reads(const struct sock *s);

/* fork.c: the child is given a bit on every pair, or none; called in the parent before, in both after. */
void pair_before_fork(void);
void pair_after_fork_in_parent(uint32_t child_attach_id);
void pair_after_fork_in_child(void);

#endif
