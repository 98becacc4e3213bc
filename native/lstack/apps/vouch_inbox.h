/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What processes have sent to show whose a port is (GZ_MESSAGE_VOUCH), until they ask for the port. */
#ifndef LSTACK_VOUCH_INBOX_H
#define LSTACK_VOUCH_INBOX_H

#include <stdint.h>

struct app;
struct vouch;

/* VOUCH: keeps the descriptor until the request comes. Takes fd; -1: it came without one, or we had none left. */
void vouch_inbox_put(struct app *app, uint32_t number, int fd);

/* What was sent under this number, which is the caller's now. NULL: nothing. */
struct vouch *vouch_inbox_take(struct app *app, uint32_t number);

/* Drops all that was sent and never asked for. */
void vouch_inbox_clear(struct app *app);

#endif
