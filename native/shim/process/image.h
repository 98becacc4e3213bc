/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A socket written down, for a process that takes it over: the next image of this one (exec.c), or a relative it is passed to
 * (parcel.c). What the workers and pairs know of it is not in here, but where: its numbers.
 */
#ifndef SHIM_IMAGE_H
#define SHIM_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/abi.h>

#include "core/options.h"
#include "core/route.h"

struct link;
struct sock;

struct image_sock {
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
void image_of(struct sock *s, struct image_sock *image);

/*
 * The socket, with no references yet and entered at its links: a STREAM at `link` (NULL: it is gone), others at those workers
 * that are there. NULL: no memory, no link, or nothing that image_of() writes. shim.lock held, or before main.
 */
struct sock *image_restore(const struct image_sock *image, struct link *link);

#endif
