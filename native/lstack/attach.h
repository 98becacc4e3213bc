/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Control sockets of attached processes: handshake, forks, the end of an attachment. */
#ifndef LSTACK_ATTACH_H
#define LSTACK_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/attach.h>

struct app;
struct apps;

/* Makes the attach socket and the eventfd. 0 or -errno. */
int attach_open(struct apps *apps);

/* An event of one of our descriptors; `owner` as given to epoll. */
void attach_event(struct apps *apps, void *owner, uint32_t events);

/* Sends one message with up to GZ_WELCOME_FDS descriptors. Never blocks; false: the process does not read, or is gone. */
bool attach_send(struct app *app, struct gz_message *message, const int *fds, uint32_t count);

/* Lets go of processes that came but never said what they want. */
void attach_drop_silent(struct apps *apps);

/* Ends an attachment: everything it holds is let go. The struct lives until apps_flush. */
void app_detach(struct app *app);

#endif
