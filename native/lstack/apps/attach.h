/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Control sockets of attached processes: handshake, forks, the end of an attachment. */
#ifndef LSTACK_ATTACH_H
#define LSTACK_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/control.h>

struct app;
struct apps;

/* Makes the attach socket and the eventfd. 0 or -errno. */
int attach_open(struct apps *apps);

/* An event of one of our descriptors; `owner` as given to epoll. */
void attach_event(struct apps *apps, void *owner, uint32_t events);

/* Sends one message with up to GZ_WELCOME_FDS descriptors. Never blocks; false: the process does not read, or is gone. */
bool attach_send(struct app *app, struct gz_message *message, const int *fds, uint32_t count);

/* Closes a descriptor that came from a process, -1: none. Nobody makes us wait for what a socket of his has still to send. */
void attach_discard(int fd);

/* Reads one message of the process. False: there is none, or it is gone, or was doomed for it. */
bool attach_hear(struct app *app);

/* Attends to all that processes have said or that has become of them, now instead of at the next look at the epoll set. */
void attach_look(struct apps *apps);

/* Lets go of processes that came but never said what they want. */
void attach_drop_silent(struct apps *apps);

/* Ends an attachment: everything it holds is let go. The struct lives until apps_flush. */
void app_detach(struct app *app);

#endif
