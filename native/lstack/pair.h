/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Same host: the worker introduces two attached processes to each other and is needed no more. It makes the memory only
 * those two will see and the socketpair by which each learns of the other's death.
 */
#ifndef LSTACK_PAIR_H
#define LSTACK_PAIR_H

#include <gazelle/attach.h>

struct app;

/* PAIR: finds a process that listens at request->addr:port and introduces `app` to it. Always answers PAIRED. */
void pair_introduce(struct app *app, const struct gz_message *request);

#endif
