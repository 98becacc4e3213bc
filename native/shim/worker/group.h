/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The group of workers this process was started for: its page, and the first attachment. */
#ifndef SHIM_GROUP_H
#define SHIM_GROUP_H

#include <stdbool.h>

/*
 * True if the stack can serve sockets. The first call maps the group page and attaches to the workers; it may take some
 * milliseconds. Called where a program makes a socket, never before.
 */
bool group_on(void);

/* The program has made a pair of UNIX sockets, by which it may pass sockets to a child: it is attached before its next fork. */
void group_expect_passing(void);

/* exec.c, before main: maps the group page, attaches to nobody. False: there is none. */
bool group_inherit(void);

/* The group page is mapped, and never was before. shim.lock held. parts.c */
extern void (*const group_opened)(void);

#endif
