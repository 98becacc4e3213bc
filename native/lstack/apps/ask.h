/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Questions of who looks on and has no socket here: `gazelled connections`. */
#ifndef LSTACK_ASK_H
#define LSTACK_ASK_H

struct app;
struct gz_message;

/* Answers with the next sockets that the asker may see; with none if there was an answer in this turn already. */
void ask_connections(struct app *app, const struct gz_message *question);

#endif
