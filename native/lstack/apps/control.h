/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What attached processes say on their control sockets (gazelle/control.h). */
#ifndef LSTACK_CONTROL_H
#define LSTACK_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

struct app;
struct apps;

/* An event of one of our descriptors; `owner` as given to epoll. */
void control_event(struct apps *apps, void *owner, uint32_t events);

/* Reads one message of the process. False: there is none, or it is gone, or it has to leave for what it said. */
bool control_hear(struct app *app);

/* Attends to all that processes have said or that has become of them, now instead of at the next look at the epoll set. */
void control_look(struct apps *apps);

#endif
