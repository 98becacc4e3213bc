/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Nothing here is on the data path; whatever a peer sends wrong ends its attachment and nothing else. */
#include "apps/control.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/arena.h>
#include <gazelle/channel.h>
#include <gazelle/control.h>
#include <gazelle/message.h>
#include <gazelle/wake.h>
#include <gazelle/worker_page.h>

#include "apps/app.h"
#include "apps/ask.h"
#include "apps/attach.h"
#include "apps/flight.h"
#include "apps/introduce.h"
#include "apps/message.h"
#include "apps/vouch_inbox.h"
#include "core/closer.h"
#include "core/passed_fd.h"
#include "core/worker.h"
#include "shared/page.h"
#include "socket/listener.h"
#include "socket/trace.h"
#include "socket/vouch.h"

/* Messages of one process per turn. The epoll is level-triggered: what is left comes with the next. */
#define EVENT_BUDGET 16u

/*
 * Makes a control socket for a child or a carrier of this process. Returns its other end, or -1 and errno. Only a process that
 * holds that end can show its cookie.
 */
static int open_end(struct app *parent, struct app **made)
{
	socklen_t len = sizeof(uint64_t);
	int ends[2], on = 1;
	uint64_t cookie;
	const char *why;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
		return -1;
	if (!getsockopt(ends[1], SOL_SOCKET, SO_COOKIE, &cookie, &len))
		*made = attach_new(parent->apps, ends[0], parent->pid, parent->user, &why);
	if (!*made) {
		close(ends[0]);
		close(ends[1]);
		errno = EUSERS;
		return -1;
	}
	/* We have made the pair: only credentials sent along tell the child's pid. */
	(void)setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	(*made)->end_cookie = cookie;
	attach_join(*made, parent->arena);
	return ends[1];
}

/* The end goes with the answer, and is not ours any more. */
static void give_end(struct app *parent, const struct app *made, int end)
{
	struct gz_message answer = { .kind = GZ_MESSAGE_FORKED, .status = end < 0 ? errno : 0 };

	if (end >= 0 && !flight_charge(parent->user, parent->control_fd, &parent->flying, 1)) {
		close(end); /* which ends what was made */
		end = -1;
		answer.status = EMFILE;
	}
	if (end >= 0)
		answer.attach_id = made->slot;
	if (!message_send(parent->control_fd, &answer, &end, end >= 0))
		app_detach_later(parent, NULL);
	if (end >= 0)
		close(end);
}

static void on_fork(struct app *parent)
{
	struct app *child = NULL;
	int end = open_end(parent, &child);

	for (uint32_t w = 0; child && w < GZ_SOCKS_MAX / 64; w++)
		for (uint64_t bits = parent->holds[w]; bits; bits &= bits - 1)
			app_hold(child, parent->arena->conns[w * 64 + (uint32_t)__builtin_ctzll(bits)]);
	give_end(parent, child, end);
}

/* A socket goes on its way: with number n, what it is to this worker; with the note alone, if it is none of ours. */
static void on_carry(struct app *parent, const struct gz_message *message)
{
	uint32_t n = message->number;
	struct app *carrier = NULL;
	int end = -1;

	errno = EBADF;
	if (!n || (n < GZ_SOCKS_MAX && app_holds(parent, n)))
		end = open_end(parent, &carrier);
	if (carrier) {
		carrier->carrier = true;
		carrier->carries = n;
		memcpy(carrier->note, message->text, sizeof(carrier->note));
		if (n)
			app_hold(carrier, parent->arena->conns[n]);
	}
	give_end(parent, carrier, end);
}

/* The process that made the pair of UNIX sockets which this is of; 0: one of another PID namespace; -1: it is none. */
static pid_t maker(int fd)
{
	struct ucred made_by = { 0 };
	socklen_t len = sizeof(made_by);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &made_by, &len) ? -1 : made_by.pid;
}

/* The end of a control socket, of any worker. If one of us kept it, that socket would never end, whatever becomes of the process. */
static bool leads_to_worker(struct protocol_stack *stack, int fd)
{
	pid_t made_by = maker(fd);

	return made_by < 0 || page_is_workers(stack, (uint32_t)made_by);
}

/*
 * A descriptor has come to this process, and shows us the end that lay with it. Whoever sent it had that end from a process
 * that held the socket; what is said of the socket is said by us. Nobody of another program has a say in it.
 */
static void on_adopt(struct app *app, int end)
{
	struct gz_message answer = { .kind = GZ_MESSAGE_ADOPTED, .status = EPERM };
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);
	bool ours = false;

	if (end >= 0)
		(void)getsockopt(end, SOL_SOCKET, SO_COOKIE, &cookie, &len);
	for (struct app *from = app->arena->apps; from && cookie; from = from->arena_next) {
		if (!from->carrier || from->end_cookie != cookie || from->leaving)
			continue;
		ours = true;
		answer.status = 0;
		answer.number = from->carries;
		answer.attach_id = from->carries && app_holds(app, from->carries);
		memcpy(answer.text, from->note, sizeof(answer.text));
		if (from->carries)
			app_hold(app, app->arena->conns[from->carries]);
	}
	if (!message_send(app->control_fd, &answer, NULL, 0))
		app_detach_later(app, NULL);
	/* Others may show the same end after this process. In its queue lies nothing but what a worker has sent. */
	if (end >= 0 && (ours || (maker(end) > 0 && leads_to_worker(app->apps->stack, end))))
		close(end);
	else
		passed_fd_close(end, app->user->uid);
}

/* It need not have claimed: what it never uses is closed as well. */
static void on_drop(struct app *app, const struct gz_message *message)
{
	for (uint64_t bits = message->drop; bits && message->number < GZ_SOCKS_MAX / 64; bits &= bits - 1)
		app_let_go(app, message->number * 64 + (uint32_t)__builtin_ctzll(bits));
}

/* From now on nothing can be sent to it, and nothing was: such an end could lie in its queue as well. */
static bool is_deaf(int fd)
{
	char byte;

	return !shutdown(fd, SHUT_RD) && recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

/* What this says holds for ever: it is about the socket, not about flags the process could change behind our back. */
static bool can_wake(struct protocol_stack *stack, int fd)
{
	int domain = -1, type = -1;
	socklen_t len = sizeof(int);

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) &&
	       !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && domain == GZ_WAKE_DOMAIN && type == GZ_WAKE_TYPE &&
	       !leads_to_worker(stack, fd) && is_deaf(fd);
}

static void on_event_queue(struct app *app, const struct gz_message *message, int fd)
{
	uint32_t number = message->number;

	if (number >= GZ_EVENT_QUEUES || !gz_message_brings(message, fd >= 0) || !app->channel ||
	    !can_wake(app->apps->stack, fd)) {
		passed_fd_close(fd, app->user->uid);
		app_detach_later(app, "bad event queue");
		return;
	}
	if (app->queue_fd[number] >= 0) {
		passed_fd_close(app->queue_fd[number], app->user->uid);
	} else if (quota_take(app->user, QUOTA_FILES)) {
		app->files++;
	} else {
		passed_fd_close(fd, app->user->uid);
		app_detach_later(app, "its user has as many descriptors of the worker as one may");
		return;
	}
	app->queue_fd[number] = fd;
	/* It may be asleep already, and whatever rang before we had this descriptor could not wake it: let it look again. */
	(void)send(fd, "", 1, GZ_WAKE_FLAGS);
}

/* The administrator wants to see where the time goes, for as long as this connection lasts. */
static void on_trace(struct app *app)
{
	if (app->arena || app->tracer || app->user->uid) {
		attach_refuse(app, EPERM, "only the administrator traces");
		return;
	}
	app->tracer = true;
	trace_begin(app->apps->stack);
}

/*
 * `fault`: what gz_message_check says of it. `sender`: the process that really sent it, 0 if the socket does not tell (only
 * those of forks do).
 */
static void on_message(struct app *app, const struct gz_message *message, int fault, int fd, pid_t sender)
{
	if (sender)
		app->pid = sender;
	if (app->carrier)
		app_detach_later(app, "a socket on its way says something");
	else if (fault == -EBADMSG)
		attach_refuse(app, EPROTO, "not a gazelled library");
	else if (fault)
		attach_refuse(app, EPROTO, "library and worker are of different versions");
	else if (message->kind == GZ_MESSAGE_EVENT_QUEUE) {
		on_event_queue(app, message, fd);
		return;
	} else if (message->kind == GZ_MESSAGE_VOUCH && app->channel) {
		vouch_inbox_put(app, message->number, fd);
		return;
	} else if (message->kind == GZ_MESSAGE_WAKE)
		; /* we are awake */
	else if (message->kind == GZ_MESSAGE_TRACE)
		on_trace(app);
	else if (message->kind == GZ_MESSAGE_DRAIN && !app->arena)
		ask_to_drain(app, message);
	else if (message->kind == GZ_MESSAGE_CONNECTIONS && !app->arena)
		ask_connections(app, message);
	else if (message->kind == GZ_MESSAGE_HELLO)
		attach_hello(app);
	else if (message->kind == GZ_MESSAGE_FORK && app->arena)
		on_fork(app);
	else if (message->kind == GZ_MESSAGE_CARRY && app->arena)
		on_carry(app, message);
	else if (message->kind == GZ_MESSAGE_PAIR && app->channel)
		introduce(app, message, fd);
	else if (message->kind == GZ_MESSAGE_DROP && app->arena)
		on_drop(app, message);
	else if (message->kind == GZ_MESSAGE_ADOPT && app->channel) {
		on_adopt(app, fd);
		return;
	} else if (message->kind == GZ_MESSAGE_CLAIM)
		attach_claim(app);
	else
		app_detach_later(app, "unknown message");
	passed_fd_close(fd, app->user->uid);
}

bool control_hear(struct app *app)
{
	struct gz_message message;
	union passed_fds control;
	struct gz_envelope envelope;
	struct msghdr *msg = gz_envelope_open(&envelope, &message, sizeof(message));
	int fds[PASSED_FDS_ROOM], fault;
	pid_t sender = 0;
	uint32_t count;
	ssize_t n;

	if (closer_is_held_by(app->user->uid)) {
		app_detach_later(app, CLOSER_HELD);
		return false;
	}
	msg->msg_control = control.buf;
	msg->msg_controllen = sizeof(control);
	n = recvmsg(app->control_fd, msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR) {
			app->gone = true;
			app_detach_later(app, NULL);
		}
		return false;
	}
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
			struct ucred cred;

			memcpy(&cred, CMSG_DATA(c), sizeof(cred));
			sender = cred.pid;
		}
	}
	fault = gz_message_check(&message, n);
	count = gz_fds_take(msg, fds, PASSED_FDS_ROOM);
	while (count > 1)
		passed_fd_close(fds[--count], app->user->uid); /* no message carries more than one */
	if (fault != -EMSGSIZE && msg->msg_flags & MSG_CTRUNC && message.kind == GZ_MESSAGE_VOUCH) {
		/* We have no descriptor left, which is for the request to be told. */
		while (count)
			passed_fd_close(fds[--count], app->user->uid);
		msg->msg_flags &= ~MSG_CTRUNC;
	}
	if (fault == -EMSGSIZE || msg->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		/* Nothing at all is the end, or an empty message, which may bring a descriptor all the same. */
		if (count)
			passed_fd_close(fds[0], app->user->uid);
		app->gone = !n && !count;
		app_detach_later(app, n ? "message of the wrong size" : NULL);
		return false;
	}
	on_message(app, &message, fault, count ? fds[0] : -1, sender);
	return !app->leaving;
}

void control_event(struct apps *apps, void *owner, uint32_t events)
{
	int fd;

	(void)events;
	if (owner == &apps->listen_fd) {
		attach_accept(apps);
	} else if (vouch_of_event(owner, &fd)) {
		listener_changed(&apps->sockets, fd);
	} else {
		struct app *app = owner;

		for (uint32_t i = 0; i < EVENT_BUDGET && !app->leaving && control_hear(app); i++)
			;
	}
}

void control_look(struct apps *apps)
{
	struct epoll_event events[GZ_APPS_MAX];
	int n = epoll_wait(apps->stack->epoll_fd, events, GZ_APPS_MAX, 0);

	for (int i = 0; i < n; i++)
		for (struct app *app = apps->all; app; app = app->next)
			if (app == events[i].data.ptr && !app->leaving)
				control_event(apps, app, events[i].events);
}
