/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What commands ask, and tell, on a control socket; they have no socket here. */
#ifndef LSTACK_ASK_H
#define LSTACK_ASK_H

struct app;
struct gz_message;

/* Answers with the next sockets that the asker may see; with none if there was an answer in this turn already. */
void ask_connections(struct app *app, const struct gz_message *question);

/* GZ_MESSAGE_DRAIN, from the administrator. */
void ask_to_drain(struct app *app, const struct gz_message *message);

#endif
