/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What attached processes ask for by their channels: rung sockets, and requests. */
#ifndef LSTACK_REQUESTS_H
#define LSTACK_REQUESTS_H

#include <stdint.h>

struct app;

/* Takes at most about `budget` rung sockets of a process, and carries out its requests. Returns how many were taken. */
uint32_t requests_serve(struct app *app, uint32_t budget);

/*
 * A process has ended: carries out what it had still posted and rung for. It may have accepted, answered and exited within one
 * turn of the worker, and its peer is to get the answer, not a reset.
 */
void requests_finish(struct app *app);

#endif
