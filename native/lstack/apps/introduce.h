/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Same host: the worker introduces a process to all processes of the program it wants to connect to, and is needed no more.
 * The worker makes the memory, which only those two programs will see, and the member sockets, by whose EOF a process learns
 * that one of the other program has died.
 */
#ifndef LSTACK_INTRODUCE_H
#define LSTACK_INTRODUCE_H

#include <gazelle/control.h>

struct app;

/*
 * PAIR: finds the program that listens at request->addr:port and introduces `app` to it. Always answers PAIRED. `fd`: a socket of the
 * caller, or -1; it stays his.
 */
void introduce(struct app *app, const struct gz_message *request, int fd);

#endif
