/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Connections that wait to be accepted: a ring in the memory of each pair, which side 0 fills and side 1 empties. */
#ifndef SHIM_SAMEHOST_ACCEPT_H
#define SHIM_SAMEHOST_ACCEPT_H

#include "samehost/pair_memory.h"

/* Side 0: pushes n to the other side's accept ring. False: it is full. shim.lock held. */
bool accept_push(struct attachment *a, uint32_t n);

/* Side 0: how many established connections wait there. */
uint32_t accept_count(struct attachment *a, const struct gz_name *like);

/* Side 0: takes n out of the ring again. False: the other side was faster. */
bool accept_take_back(struct attachment *a, uint32_t n);

/* Side 1: true if no connection waits. */
bool accept_is_empty(const struct attachment *a);

/* Side 1, the pair is new: our listeners want to hear of what it brings. */
void accept_begin(struct attachment *a);

/* In the child of a fork: these queues remain. */
void accept_after_fork(uint64_t queues);

/* Listeners: one waiting connection (false: none) and its name; whether there is one; how many ever came, for edges. */
bool pair_accept(struct sock *s, struct attachment **a, uint32_t *n, struct gz_name *name);
bool pair_waiting(const struct sock *s);
uint32_t pair_accept_count(void);

/* Since when the first of them waits; false: none does. */
bool pair_waiting_since(const struct sock *s, uint32_t *stamp);

/* The backlog of s has changed, or room in it: connects that wait for that go on. */
void pair_backlog(const struct sock *s);

/* s listens no more in this process: unless another process of the program does, what waits for it is refused. shim.lock held. */
void pair_refuse_waiting(struct sock *s);

/* This event queue wants to hear of waiting connections from now on. */
void pair_listen_interest(uint32_t queue);

#endif
