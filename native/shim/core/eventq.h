/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Event queues: what this process waits on. Queue k is bell k of every attachment plus a socket that wakes it (wake.h). Each epoll set with
 * accelerated sockets has one, and each thread that blocks. There are GZ_EVENT_QUEUES; a thread that finds none free shares the last,
 * which nobody owns: bells cannot be taken from it, so its users look at levels only, and sleep only briefly.
 */
#ifndef SHIM_EVENTQ_H
#define SHIM_EVENTQ_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/channel.h>

#define EVENTQ_SHARED (GZ_EVENT_QUEUES - 1)
#define EVENTQ_SHARED_SLEEP_NS 2000000ull

/* A queue for the caller alone, or EVENTQ_SHARED. */
uint32_t eventq_take(void);

/* Gives it back; not from within a sleep. */
void eventq_give(uint32_t queue);

/* This thread's own queue, given back when the thread ends. */
uint32_t eventq_mine(void);

/* What it sleeps on, made on first use; -1 if there is no descriptor left. And what wakes it, to be given to peers. */
int eventq_fd(uint32_t queue);
int eventq_out(uint32_t queue);

/*
 * Before a sleep, first phase: tells every attachment that this queue is asleep. The caller then looks once more. Several threads
 * may sleep on one queue: a set's waiters, and threads that poll the set or wait in a set around it.
 */
void eventq_declare(uint32_t queue);

/* After it. While other threads sleep on the queue it stays declared. */
void eventq_retract(uint32_t queue);

/* How many have declared and not retracted. */
uint32_t eventq_sleepers(uint32_t queue);

/* True if a bell of this queue is rung on any attachment. */
bool eventq_rung(uint32_t queue);

/* Wakes the threads that sleep on it (an attachment died, or another thread changed what it waits for). */
void eventq_wake(uint32_t queue);
void eventq_wake_all(void);

/*
 * Takes the wake-up after a sleep. Other threads may have slept on it: one that returns to its program while there is still something
 * for them calls eventq_wake.
 */
void eventq_drain(uint32_t queue);

/* In the child of a fork: only this thread's and the epoll sets' queues are in use, and all need sockets of their own. Returns them all. */
uint64_t eventq_after_fork(uint64_t in_use);

#endif
