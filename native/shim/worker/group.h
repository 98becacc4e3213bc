/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The group of workers this process was started for: its page, and the first attachment. */
#ifndef SHIM_GROUP_H
#define SHIM_GROUP_H

#include <stdbool.h>

/* What `gazelled run` tells the library by the environment. */
enum group_variable { GROUP_PAGE, GROUP_FALLBACK, GROUP_EXPLAIN, GROUP_VARIABLES };

/*
 * Before main: keeps what the environment says, which many a program changes, or clears, before it makes its first socket. Later calls
 * add what was not said before.
 */
void group_remember(void);

/* The name of a variable; and "name=value" as it was kept, NULL: it was not set. */
const char *group_variable(enum group_variable which);
const char *group_assignment(enum group_variable which);

/*
 * True if the stack can serve sockets. The first call maps the group page and attaches to the workers; it may take some
 * milliseconds. Called where a program makes a socket, never before.
 */
bool group_on(void);

/* The program has made a pair of UNIX sockets, by which it may pass sockets to a child: it is attached before its next fork. */
void group_expect_passing(void);

/* True if there is a group page; attaches to nobody. */
bool group_known(void);

/* exec.c, before main: maps the group page, attaches to nobody. False: there is none. */
bool group_inherit(void);

/* The group page is mapped, and never was before. shim.lock held. parts.c */
extern void (*const group_opened)(void);

#endif
