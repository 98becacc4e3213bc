/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The line of a listener in the worker page, by which others see it. */
#ifndef LSTACK_LISTENER_LINE_H
#define LSTACK_LISTENER_LINE_H

#include <stdint.h>

struct listener;
struct vouch;

/* Whose the port is: that of the first member. */
const struct vouch *listener_vouch(const struct listener *listener);

/* Writes a line for a new listener of the process with this slot, if there is one left. */
void listener_line_write(struct listener *listener, uint32_t slot);

/* The first member has changed, or its backlog. */
void listener_line_update(const struct listener *listener);

void listener_line_erase(struct listener *listener);

#endif
