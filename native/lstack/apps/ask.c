/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Who asks pulls: an answer is sent when it was asked for, and nothing is kept for the next one but what the asker sends along.
 * So a slow asker costs nothing, and one that does not read at all is detached.
 */
#include "apps/ask.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <gazelle/abi.h>
#include <gazelle/connections.h>
#include <gazelle/control.h>
#include <gazelle/worker_page.h>

#include "apps/app.h"
#include "apps/attach.h"
#include "apps/message.h"
#include "core/worker.h"
#include "shared/page.h"
#include "socket/survey.h"

void ask_connections(struct app *app, const struct gz_message *question)
{
	struct apps *apps = app->apps;
	struct gz_connection records[GZ_CONNECTIONS_AT_ONCE];
	struct survey survey = { .sockets = &apps->sockets,
		                 .cursor = question->cursor,
		                 .everybodys = !app->user->uid,
		                 .uid = app->user->uid,
		                 .record = records };
	struct gz_message answer = { .magic = GZ_ATTACH_MAGIC, .abi_version = GZ_ABI_VERSION, .kind = GZ_MESSAGE_CONNECTIONS };
	struct iovec parts[] = { { .iov_base = &answer, .iov_len = sizeof(answer) }, { .iov_base = records } };
	struct msghdr msg = { .msg_iov = parts, .msg_iovlen = 2 };

	if (apps->asked_ns != apps->stack->now_ns)
		survey_go_on(&survey);
	apps->asked_ns = apps->stack->now_ns;
	app->since_ns = apps->stack->now_ns;
	answer.number = survey.count;
	answer.cursor = survey.cursor;
	parts[1].iov_len = survey.count * sizeof(records[0]);
	if (sendmsg(app->control_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		app_detach_later(app, NULL);
}

/* Other workers look at the state of our page before they hand us a SYN, and so do programs before they connect. */
void ask_to_drain(struct app *app, const struct gz_message *message)
{
	struct protocol_stack *stack = app->apps->stack;
	struct gz_message answer = { .kind = GZ_MESSAGE_DRAIN, .number = message->number };

	if (app->user->uid) {
		attach_refuse(app, EPERM, "only the administrator drains");
		return;
	}
	stack->draining = message->number != 0;
	page_set_state(stack, stack->draining ? GZ_WORKER_DRAINING : GZ_WORKER_RUNNING);
	if (!message_send(app->control_fd, &answer, NULL, 0))
		app_detach_later(app, NULL);
}
