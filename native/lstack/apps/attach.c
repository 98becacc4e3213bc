/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Control sockets: the handshake of control.h, and the life of struct app. Nothing here is on the data path; whatever a peer
 * sends wrong ends its attachment and nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/channel.h>
#include <gazelle/control.h>
#include <gazelle/group_page.h>
#include <gazelle/wake.h>
#include <gazelle/worker_page.h>

#include "apps/access.h"
#include "apps/app.h"
#include "apps/attach.h"
#include "apps/flight.h"
#include "socket/conn.h"
#include "socket/listener.h"
#include "core/log.h"
#include "shared/page.h"
#include "apps/pair.h"
#include "apps/remains.h"
#include "shared/trace.h"
#include "apps/vouch.h"
#include "core/worker.h"

/* Messages of one process, or new processes, per turn. The epoll is level-triggered: what is left comes with the next. */
#define EVENT_BUDGET 16u
#define SILENT_NS 2000000000ull
/* Whoever comes while it is full waits or tries again, so one user should not fill it easily. The kernel takes somaxconn. */
#define BACKLOG 65535

static int watch(struct apps *apps, int fd, void *owner)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = owner };

	return epoll_ctl(apps->stack->epoll_fd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

int attach_open(struct apps *apps)
{
	const struct gz_group_page *group = apps->stack->group;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int err;

	for (uint32_t i = GZ_APPS_MAX; i-- > 0;)
		apps->place[apps->places++] = (uint16_t)i;

	if ((size_t)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/worker.%u.sock", group->run_dir,
	                     apps->stack->queue_id) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	err = vouch_open(apps);
	if (err)
		return err;
	apps->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (apps->listen_fd < 0)
		return -errno;
	unlink(addr.sun_path); /* a predecessor's; the plan gives this path to us alone */
	if (bind(apps->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(apps->listen_fd, BACKLOG)) {
		err = -errno;
		goto err_close_listen;
	}
	err = access_share_socket(group, addr.sun_path);
	if (err)
		goto err_close_listen;
	apps->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	err = watch(apps, apps->listen_fd, &apps->listen_fd);
	if (!err)
		return 0;

err_close_listen:
	close(apps->listen_fd);
	return err;
}

void attach_discard(int fd)
{
	const struct linger never = { .l_onoff = 0 };
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);

	if (fd < 0)
		return;
	/* Of one that is not connected the option is the process's, which may use the socket on. */
	if (!getpeername(fd, (struct sockaddr *)&peer, &len))
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &never, sizeof(never));
	close(fd);
}

static bool send_message(int fd, struct gz_message *message, const int *fds, uint32_t count)
{
	union {
		char buf[CMSG_SPACE(GZ_WELCOME_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = message, .iov_len = sizeof(*message) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	message->magic = GZ_ATTACH_MAGIC;
	message->abi_version = GZ_ABI_VERSION;
	if (count) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	return sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(*message);
}

bool attach_send(struct app *app, struct gz_message *message, const int *fds, uint32_t count)
{
	return send_message(app->control_fd, message, fds, count);
}

/* The last word to a process. What it has said before is taken in: left unread, it would make the kernel drop our word. */
static void say_no(int fd, int status, const char *why)
{
	struct gz_message message = { .kind = GZ_MESSAGE_REFUSED, .status = status };

	snprintf(message.text, sizeof(message.text), "%s", why);
	(void)send_message(fd, &message, NULL, 0);
	for (uint32_t i = 0; i < EVENT_BUDGET && recv(fd, &message, sizeof(message), MSG_DONTWAIT) > 0; i++)
		;
}

static void refuse(struct app *app, int status, const char *why)
{
	say_no(app->control_fd, status, why);
	log_warn("process %d refused: %s", (int)app->pid, why);
	app_doom(app, NULL);
}

/* NULL and *why. `user`: a reference is taken. */
static struct app *new_app(struct apps *apps, int fd, pid_t pid, struct user *user, const char **why)
{
	struct app *app = NULL;

	*why = "its user has as many processes here as one may have";
	if (!quota_take(user, QUOTA_PROCESSES))
		return NULL;
	*why = "its user has as many descriptors of the worker as one may";
	if (!quota_take(user, QUOTA_FILES))
		goto err_processes;
	*why = "no memory for a process";
	app = calloc(1, sizeof(*app));
	if (!app)
		goto err_files;
	app->apps = apps;
	app->control_fd = fd;
	app->channel_fd = -1;
	app->pid = pid;
	app->user = user;
	app->since_ns = apps->stack->now_ns;
	memset(app->queue_fd, -1, sizeof(app->queue_fd));
	if (watch(apps, fd, app))
		goto err_free;
	quota_hold(user);
	app->files = 1;
	app->slot = apps->place[--apps->places]; /* the quota has seen to it that there is one */
	app->next = apps->all;
	if (apps->all)
		apps->all->prev = app;
	apps->all = app;
	apps->count++;
	struct gz_app_stat *stat = &apps->stack->page->apps[app->slot];
	memset(stat, 0, sizeof(*stat));
	gz_store_release(&stat->pid, (uint32_t)pid);
	if (app->slot >= gz_load(&apps->stack->page->apps_end))
		gz_store_release(&apps->stack->page->apps_end, app->slot + 1);
	worker_gauge(apps->stack, GZ_COUNT_attachments, apps->count);
	return app;

err_free:
	free(app);
err_files:
	quota_give(user, QUOTA_FILES);
err_processes:
	quota_give(user, QUOTA_PROCESSES);
	return NULL;
}

static void join_arena(struct app *app, struct arena *arena)
{
	arena_get(arena);
	app->arena = arena;
	app->arena_next = arena->apps;
	arena->apps = app;
}

static int open_channel(struct app *app)
{
	int fd = memfd_create("gazelle-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING), err;
	struct gz_channel *channel;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, sizeof(*channel)) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		err = -errno;
		goto err_close;
	}
	channel = mmap(NULL, sizeof(*channel), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (channel == MAP_FAILED) {
		err = -errno;
		goto err_close;
	}
	channel->magic = GZ_CHANNEL_MAGIC;
	channel->abi_version = GZ_ABI_VERSION;
	channel->queue_id = app->apps->stack->queue_id;
	channel->attach_id = app->slot;
	app->channel = channel;
	app->channel_fd = fd;
	app_grant(app);
	return 0;

err_close:
	close(fd);
	return err;
}

static int open_page(const struct protocol_stack *stack)
{
	char path[sizeof(stack->group->run_dir) + 32];

	snprintf(path, sizeof(path), "%s/worker.%u.page", stack->group->run_dir, stack->queue_id);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* HELLO and CLAIM end alike: the process gets its channel and sees its arena. */
static void welcome(struct app *app)
{
	struct protocol_stack *stack = app->apps->stack;
	int err, page_fd;

	if (!flight_charge(app->user, app->control_fd, &app->flying, GZ_WELCOME_FDS)) {
		refuse(app, EMFILE, "its user has as many descriptors under way as one may");
		return;
	}
	err = open_channel(app);
	if (err) {
		refuse(app, -err, "no memory for a channel");
		return;
	}
	page_fd = open_page(stack);
	if (page_fd < 0) {
		refuse(app, errno, "worker page cannot be opened");
		return;
	}
	int fds[GZ_WELCOME_FDS];
	fds[GZ_WELCOME_ARENA] = app->arena->fd;
	fds[GZ_WELCOME_CHANNEL] = app->channel_fd;
	fds[GZ_WELCOME_PAGE] = page_fd;
	struct gz_message message = {
		.kind = GZ_MESSAGE_WELCOME,
		.number = stack->queue_id,
		.attach_id = app->slot,
		.arena_size = ARENA_SIZE,
		.channel_size = sizeof(struct gz_channel),
	};
	if (!send_message(app->control_fd, &message, fds, GZ_WELCOME_FDS))
		app_doom(app, NULL);
	close(page_fd);
	/* The process maps it from its own descriptor; ours has served. */
	close(app->channel_fd);
	app->channel_fd = -1;
	worker_count(stack, GZ_COUNT_attached_total, 1);
}

static void on_hello(struct app *app)
{
	if (app->arena) {
		app_doom(app, "second HELLO");
		return;
	}
	struct arena *arena = arena_create(app->apps, app->user);
	if (!arena) {
		refuse(app, errno ? errno : ENOMEM,
		       errno == EUSERS ? "its user has as many programs here as one may have" : "no memory for an arena");
		return;
	}
	arena->family = ++app->apps->families;
	join_arena(app, arena);
	arena_put(arena); /* the process's reference keeps it */
	welcome(app);
}

static void on_claim(struct app *app)
{
	if (!app->arena || app->channel) {
		app_doom(app, "CLAIM without a fork");
		return;
	}
	gz_store(&app->apps->stack->page->apps[app->slot].pid, (uint32_t)app->pid);
	welcome(app);
	app_publish(app);
}

/* A control socket for somebody this process brings. Its other end, whose cookie only who holds it can show; or -1 and errno. */
static int open_end(struct app *parent, struct app **made)
{
	socklen_t len = sizeof(uint64_t);
	int ends[2], on = 1;
	uint64_t cookie;
	const char *why;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
		return -1;
	if (!getsockopt(ends[1], SOL_SOCKET, SO_COOKIE, &cookie, &len))
		*made = new_app(parent->apps, ends[0], parent->pid, parent->user, &why);
	if (!*made) {
		close(ends[0]);
		close(ends[1]);
		errno = EUSERS;
		return -1;
	}
	/* We have made the pair: only credentials sent along tell the child's pid. */
	(void)setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	(*made)->end_cookie = cookie;
	join_arena(*made, parent->arena);
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
	if (!send_message(parent->control_fd, &answer, &end, end >= 0))
		app_doom(parent, NULL);
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

/*
 * A descriptor has come to this process, and shows us the end that lay with it. Whoever sent it had that end from a process
 * that held the socket; what is said of the socket is said by us. Nobody of another program has a say in it.
 */
static void on_adopt(struct app *app, int end)
{
	struct gz_message answer = { .kind = GZ_MESSAGE_ADOPTED, .status = EPERM };
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (end >= 0)
		(void)getsockopt(end, SOL_SOCKET, SO_COOKIE, &cookie, &len);
	for (struct app *from = app->arena->apps; from && cookie; from = from->arena_next) {
		if (!from->carrier || from->end_cookie != cookie || from->doomed)
			continue;
		answer.status = 0;
		answer.number = from->carries;
		answer.attach_id = from->carries && app_holds(app, from->carries);
		memcpy(answer.text, from->note, sizeof(answer.text));
		if (from->carries)
			app_hold(app, app->arena->conns[from->carries]);
	}
	if (!send_message(app->control_fd, &answer, NULL, 0))
		app_doom(app, NULL);
}

/* It need not have claimed: what it never uses is closed as well. */
static void on_drop(struct app *app, const struct gz_message *message)
{
	for (uint64_t bits = message->drop; bits && message->number < GZ_SOCKS_MAX / 64; bits &= bits - 1)
		app_let_go(app, message->number * 64 + (uint32_t)__builtin_ctzll(bits));
}

/* The end of a control socket, of any worker. If one of us kept it, that socket would never end, whatever becomes of the process. */
static bool leads_to_worker(struct protocol_stack *stack, int fd)
{
	struct ucred made_by = { 0 };
	socklen_t len = sizeof(made_by);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &made_by, &len) || page_is_workers(stack, (uint32_t)made_by.pid);
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

static void on_event_queue(struct app *app, uint32_t number, int fd)
{
	if (number >= GZ_EVENT_QUEUES || fd < 0 || !app->channel || !can_wake(app->apps->stack, fd)) {
		attach_discard(fd);
		app_doom(app, "bad event queue");
		return;
	}
	if (app->queue_fd[number] >= 0) {
		close(app->queue_fd[number]);
	} else if (quota_take(app->user, QUOTA_FILES)) {
		app->files++;
	} else {
		close(fd);
		app_doom(app, "its user has as many descriptors of the worker as one may");
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
		refuse(app, EPERM, "only the administrator traces");
		return;
	}
	app->tracer = true;
	trace_begin(app->apps->stack);
}

/* `sender`: who really sent it, 0 if the socket does not tell (only those of forks do). */
static void on_message(struct app *app, const struct gz_message *message, int fd, pid_t sender)
{
	if (sender)
		app->pid = sender;
	if (app->carrier)
		app_doom(app, "a socket on its way says something");
	else if (message->magic != GZ_ATTACH_MAGIC)
		refuse(app, EPROTO, "not a gazelled library");
	else if (message->abi_version != GZ_ABI_VERSION)
		refuse(app, EPROTO, "library and worker are of different versions");
	else if (message->kind == GZ_MESSAGE_EVENT_QUEUE) {
		on_event_queue(app, message->number, fd);
		return;
	} else if (message->kind == GZ_MESSAGE_VOUCH && app->channel) {
		vouch_came(app, message->number, fd);
		return;
	} else if (message->kind == GZ_MESSAGE_WAKE)
		; /* we are awake */
	else if (message->kind == GZ_MESSAGE_TRACE)
		on_trace(app);
	else if (message->kind == GZ_MESSAGE_HELLO)
		on_hello(app);
	else if (message->kind == GZ_MESSAGE_FORK && app->arena)
		on_fork(app);
	else if (message->kind == GZ_MESSAGE_CARRY && app->arena)
		on_carry(app, message);
	else if (message->kind == GZ_MESSAGE_PAIR && app->channel)
		pair_introduce(app, message, fd);
	else if (message->kind == GZ_MESSAGE_DROP && app->arena)
		on_drop(app, message);
	else if (message->kind == GZ_MESSAGE_ADOPT && app->channel)
		on_adopt(app, fd);
	else if (message->kind == GZ_MESSAGE_CLAIM)
		on_claim(app);
	else
		app_doom(app, "unknown message");
	attach_discard(fd);
}

bool attach_hear(struct app *app)
{
	struct gz_message message;
	union {
		char buf[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = &message, .iov_len = sizeof(message) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control)
	};
	ssize_t n = recvmsg(app->control_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	/* The kernel fills whatever room it is given with descriptors, also that meant for credentials nobody asked for. */
	int fds[sizeof(control.buf) / sizeof(int)], count = 0;
	pid_t sender = 0;

	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR) {
			app->gone = true;
			app_doom(app, NULL);
		}
		return false;
	}
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
			struct ucred cred;

			memcpy(&cred, CMSG_DATA(c), sizeof(cred));
			sender = cred.pid;
		}
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), (size_t)count * sizeof(int));
	}
	while (count > 1)
		attach_discard(fds[--count]); /* no message carries more than one */
	if (n == (ssize_t)sizeof(message) && msg.msg_flags & MSG_CTRUNC && message.kind == GZ_MESSAGE_VOUCH) {
		/* We have no descriptor left, which is for the request to be told. */
		while (count)
			attach_discard(fds[--count]);
		msg.msg_flags &= ~MSG_CTRUNC;
	}
	if (n != (ssize_t)sizeof(message) || msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		/* Nothing at all is the end, or an empty message, which may bring a descriptor all the same. */
		if (count)
			attach_discard(fds[0]);
		app->gone = !n && !count;
		app_doom(app, n ? "message of the wrong size" : NULL);
		return false;
	}
	on_message(app, &message, count ? fds[0] : -1, sender);
	return !app->doomed;
}

/* Tells who comes why he cannot, and forgets him. */
static void send_away(int fd, int status, const char *why)
{
	say_no(fd, status, why);
	close(fd);
}

/* No descriptor is left. Who waits would keep us from ever sleeping: one at a time is told to go. */
static void turn_away(struct apps *apps)
{
	int fd;

	close(apps->spare_fd);
	fd = accept4(apps->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0)
		send_away(fd, EMFILE, "worker has no descriptor left");
	apps->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void attach_drop_silent(struct apps *apps)
{
	for (struct app *app = apps->all; app; app = app->next)
		if (!app->arena && !app->tracer && apps->stack->now_ns - app->since_ns > SILENT_NS)
			app_doom(app, NULL);
}

static void accept_some(struct apps *apps)
{
	for (uint32_t i = 0; i < EVENT_BUDGET; i++) {
		int fd = accept4(apps->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct ucred cred = { 0 };
		socklen_t len = sizeof(cred);
		char why[64];

		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE)
				turn_away(apps);
			return;
		}
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) ||
		    !access_may_attach(apps->stack->group, fd, &cred)) {
			snprintf(why, sizeof(why), "user %u may not attach to this instance", cred.uid);
			log_warn("process %d refused: %s", (int)cred.pid, why);
			send_away(fd, EACCES, why);
			continue;
		}
		/* A process in another pid namespace has no number here; 0 would mean an empty slot. */
		struct user *user = quota_user(&apps->quota, cred.uid);
		const char *no = "no memory for a user";

		if (!user || !new_app(apps, fd, cred.pid ? cred.pid : 1, user, &no))
			send_away(fd, user ? EUSERS : ENOMEM, no);
		if (user)
			quota_let_go(user); /* the process keeps its own */
	}
}

void attach_event(struct apps *apps, void *owner, uint32_t events)
{
	int fd;

	(void)events;
	if (owner == &apps->listen_fd) {
		accept_some(apps);
	} else if (vouch_of_event(owner, &fd)) {
		listener_changed(apps, fd);
	} else {
		struct app *app = owner;

		for (uint32_t i = 0; i < EVENT_BUDGET && !app->doomed && attach_hear(app); i++)
			;
	}
}

void attach_look(struct apps *apps)
{
	struct epoll_event events[GZ_APPS_MAX];
	int n = epoll_wait(apps->stack->epoll_fd, events, GZ_APPS_MAX, 0);

	for (int i = 0; i < n; i++)
		for (struct app *app = apps->all; app; app = app->next)
			if (app == events[i].data.ptr && !app->doomed)
				attach_event(apps, app, events[i].events);
}

/* As a process of the arena still. Nobody waits for what one has to say that broke the rules. */
static void let_go_of_all(struct app *app)
{
	for (uint32_t w = 0; w < GZ_SOCKS_MAX / 64; w++)
		for (uint64_t bits = app->holds[w]; bits; bits &= bits - 1) {
			uint32_t n = w * 64 + (uint32_t)__builtin_ctzll(bits);
			struct conn *conn = app->arena->conns[n];

			if (app->doom && conn->holders == 1 && conn->pcb)
				conn_reset(conn);
			app_let_go(app, n);
		}
}

void app_detach(struct app *app)
{
	struct apps *apps = app->apps;
	struct arena *arena = app->arena;

	(void)epoll_ctl(apps->stack->epoll_fd, EPOLL_CTL_DEL, app->control_fd, NULL);
	if (flight_end(&apps->landings, app->user, app->control_fd, &app->flying))
		app->files--; /* the control socket's, which is still open */
	else
		attach_discard(app->control_fd);
	vouch_forget(app);
	if (app->tracer)
		trace_end(apps->stack);
	if (arena) {
		app_finish(app);
		let_go_of_all(app);
		for (uint32_t n = 1; n < arena->high; n++)
			if (arena->granted[n] == app->slot + 1)
				arena_give_sock(arena, n);
		struct app **p = &arena->apps;
		while (*p != app)
			p = &(*p)->arena_next;
		*p = app->arena_next;
		arena->seen |= !app->gone;
		if (arena->apps)
			apps->unclaimed_check_ns = apps->stack->now_ns;
		else
			remains_begin(arena, !arena->seen);
		arena_put(arena);
	}
	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++)
		if (app->queue_fd[k] >= 0)
			close(app->queue_fd[k]);
	if (app->channel)
		munmap(app->channel, sizeof(*app->channel));
	app->channel = NULL;
	app->rung = 0;
	if (apps->told == app)
		apps->told = NULL;
	gz_store_release(&apps->stack->page->apps[app->slot].pid, 0);
	apps->place[apps->places++] = (uint16_t)app->slot;
	while (app->files--)
		quota_give(app->user, QUOTA_FILES);
	quota_give(app->user, QUOTA_PROCESSES);
	quota_let_go(app->user);
	apps->count--;
	worker_gauge(apps->stack, GZ_COUNT_attachments, apps->count);
	if (app->prev)
		app->prev->next = app->next;
	else
		apps->all = app->next;
	if (app->next)
		app->next->prev = app->prev;
	if (app->in_rung) {
		struct app **p = &apps->rung;
		while (*p != app)
			p = &(*p)->rung_next;
		*p = app->rung_next;
	}
	app->next = apps->dead;
	apps->dead = app;
}
