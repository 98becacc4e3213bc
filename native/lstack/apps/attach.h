/* SPDX-License-Identifier: MulanPSL-2.0 */
/* How a process becomes attached: the socket it comes to, its handshake, its arena and its channel. */
#ifndef LSTACK_ATTACH_H
#define LSTACK_ATTACH_H

#include <sys/types.h>

struct app;
struct apps;
struct arena;
struct user;

/* Makes the attach socket. 0 or -errno. */
int attach_open(struct apps *apps);

/* The attach socket is readable: takes some of the processes that wait there. */
void attach_accept(struct apps *apps);

/* A process of this user with this end of a control socket; a reference to the user is taken. NULL and *why. */
struct app *attach_new(struct apps *apps, int fd, pid_t pid, struct user *user, const char **why);
void attach_join(struct app *app, struct arena *arena);

/* HELLO: it gets an arena of its own. CLAIM: a child has its parent's. Both get a channel and WELCOME. */
void attach_hello(struct app *app);
void attach_claim(struct app *app);

/* REFUSED, and the attachment ends. */
void attach_refuse(struct app *app, int status, const char *why);

/* Lets go of processes that came but never said what they want. */
void attach_drop_silent(struct apps *apps);

#endif
