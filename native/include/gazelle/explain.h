/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What `gazelled run --explain` gives to a program and all it starts, as the file $GAZELLED_EXPLAIN: each adds to it once for
 * every socket, when it is known which path that takes.
 */
#ifndef GAZELLE_EXPLAIN_H
#define GAZELLE_EXPLAIN_H

#include <stdint.h>

#include <gazelle/kernel_reason.h>

enum gz_explained {
	GZ_EXPLAINED_ACCEPTED = 0, /* TCP connections by a worker */
	GZ_EXPLAINED_CONNECTED,
	GZ_EXPLAINED_SAME_HOST, /* TCP connections with attached programs of this host, either end */
	GZ_EXPLAINED_LISTENER,
	GZ_EXPLAINED_DATAGRAM,
	GZ_EXPLAINED_KINDS
};

#define GZ_REFUSAL 64u /* bytes of a worker's reason, its end included */

struct gz_explain {
	_Atomic uint32_t accelerated[GZ_EXPLAINED_KINDS];
	_Atomic uint32_t kernel[GZ_KERNEL_REASONS];
	_Atomic uint32_t refused; /* 1: a process writes `why`, 2: it is there */
	char why[GZ_REFUSAL];     /* a worker refused one of them: its words */
};

#endif
