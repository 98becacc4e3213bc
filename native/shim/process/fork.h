/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Children. The memory of connections is the worker's, so a child shares them as it shares descriptors: before the fork
 * the parent introduces the child to every worker, which counts it as a holder; the child takes its place with the first
 * accelerated socket it uses, and one that never does only drops them by exiting. All through pthread_atfork, so that forks
 * inside the C library (daemon, forkpty) are seen too.
 */
#ifndef SHIM_FORK_H
#define SHIM_FORK_H

/* A fork by the bare system call: before() and after() of it; `child` is what it returned. */
void fork_begins(void);
void fork_ends(long child);

/* Once, when the group page is mapped; shim.lock held. */
void fork_prepare_library(void);

#endif
