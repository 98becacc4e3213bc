/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A socket written down, for a process that takes it over: this one after an exec (exec.c), or a relative it is passed to
 * (passed_sock.c). What the workers and pairs know of it is not in here, but where: its numbers.
 */
#ifndef SHIM_SNAPSHOT_H
#define SHIM_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/arena.h>
#include <gazelle/group_page.h>

#include "core/options.h"
#include "core/route.h"

struct attachment;
struct sock;

struct sock_snapshot {
	uint32_t kind; /* enum sock_kind */
	uint32_t slot; /* STREAM: the worker, and the number there; exec.c: or GZ_WORKERS_MAX + the pair in the record */
	uint32_t n;
	int32_t backlog; /* LISTENER */
	/* Flags, as bytes: those of a stranger may be anything. */
	uint8_t both, v6only; /* LISTENER, DGRAM */
	uint8_t shut;         /* LISTENER */
	uint8_t nonblock, template, datagram, bound, error_taken, told_connected, told_refused;
	uint8_t family;
	struct endpoint local;
	struct gz_name name;  /* STREAM of a pair */
	struct endpoint peer; /* DGRAM, and the next */
	uint32_t shut_how;    /* 1 << SHUT_RD | 1 << SHUT_WR */
	struct options options;
	uint32_t entry[GZ_WORKERS_MAX]; /* LISTENER, DGRAM: number at each worker, 0 = none */
};

/* All of it but entry[]. */
void snapshot_take(struct sock *s, struct sock_snapshot *snapshot);

/*
 * The socket, with no references yet and entered at its attachments: a STREAM at `attachment` (NULL: it is gone), others at those workers
 * that are there. NULL: no memory, no attachment, or nothing that snapshot_take() writes. shim.lock held, or before main.
 */
struct sock *snapshot_restore(const struct sock_snapshot *snapshot, struct attachment *a);

#endif
