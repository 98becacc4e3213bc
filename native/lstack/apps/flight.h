/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Descriptors on their way: sent to a process that has not received them yet. The kernel counts them for the worker's user and
 * allows RLIMIT_NOFILE of them; beyond that the worker can send no descriptor, so no process can attach. Hence the user whose
 * process does not receive them is charged for them.
 */
#ifndef LSTACK_FLIGHT_H
#define LSTACK_FLIGHT_H

#include <stdbool.h>
#include <stdint.h>

struct landing;
struct user;

/*
 * Charges `count` more, for the next message over a control socket to a process of this user; *flying is how many that socket
 * is charged for. False: the user has as many under way as one may.
 */
bool flight_charge(struct user *user, int fd, uint32_t *flying, uint32_t count);

/*
 * Nothing more is sent over this control socket. True: something is still under way, so it is kept, with its charge as one of
 * the worker's descriptors, until that has been taken. False: it is the caller's.
 */
bool flight_end(struct landing **landings, struct user *user, int fd, uint32_t *flying);

/* Closes the control sockets whose processes have taken theirs since. */
void flight_look(struct landing **landings);

#endif
