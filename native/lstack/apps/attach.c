/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "apps/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/channel.h>
#include <gazelle/control.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "apps/app.h"
#include "apps/flight.h"
#include "apps/message.h"
#include "core/log.h"
#include "core/closer.h"
#include "core/passed_fd.h"
#include "core/worker.h"
#include "shared/access.h"
#include "socket/vouch.h"

/* New processes per turn. The epoll is level-triggered: what is left comes with the next. */
#define EVENT_BUDGET 16u
#define SILENT_NS 2000000000ull
/* A process that comes while it is full waits or tries again, so one user should not fill it easily. The kernel takes somaxconn. */
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
		apps->free_slot[apps->free_slots++] = (uint16_t)i;

	if ((size_t)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/worker.%u.sock", group->run_dir,
	                     apps->stack->queue_id) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	err = vouch_open(&apps->sockets);
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

void attach_refuse(struct app *app, int status, const char *why)
{
	message_refuse(app->control_fd, status, why);
	log_warn("process %d refused: %s", (int)app->pid, why);
	app_detach_later(app, NULL);
}

struct app *attach_new(struct apps *apps, int fd, pid_t pid, struct user *user, const char **why)
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
	app->slot = apps->free_slot[--apps->free_slots]; /* the quota has seen to it that there is one */
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

void attach_join(struct app *app, struct arena *arena)
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
		attach_refuse(app, EMFILE, "its user has as many descriptors under way as one may");
		return;
	}
	err = open_channel(app);
	if (err) {
		attach_refuse(app, -err, "no memory for a channel");
		return;
	}
	page_fd = open_page(stack);
	if (page_fd < 0) {
		attach_refuse(app, errno, "worker page cannot be opened");
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
	if (!message_send(app->control_fd, &message, fds, GZ_WELCOME_FDS))
		app_detach_later(app, NULL);
	close(page_fd);
	/* The process maps it from its own descriptor; ours has served. */
	close(app->channel_fd);
	app->channel_fd = -1;
	worker_count(stack, GZ_COUNT_attached_total, 1);
}

void attach_hello(struct app *app)
{
	if (app->arena) {
		app_detach_later(app, "second HELLO");
		return;
	}
	struct arena *arena = arena_create(&app->apps->arenas, app->user);
	if (!arena) {
		attach_refuse(app, errno ? errno : ENOMEM,
		              errno == EUSERS ? "its user has as many programs here as one may have"
		                              : "no memory for an arena");
		return;
	}
	arena->program = ++app->apps->programs;
	attach_join(app, arena);
	arena_put(arena); /* the process's reference keeps it */
	welcome(app);
}

void attach_claim(struct app *app)
{
	if (!app->arena || app->channel) {
		app_detach_later(app, "CLAIM without a fork");
		return;
	}
	gz_store(&app->apps->stack->page->apps[app->slot].pid, (uint32_t)app->pid);
	welcome(app);
	app_publish(app);
}

/* Tells a process that comes why it cannot, and forgets it. */
static void send_away(int fd, uid_t whose, int status, const char *why)
{
	message_refuse(fd, status, why);
	passed_fd_close(fd, whose);
}

/* No descriptor is left. Who waits would keep us from ever sleeping: one at a time is told to go. */
static void turn_away(struct apps *apps)
{
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);
	int fd;

	close(apps->spare_fd);
	fd = accept4(apps->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	(void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	if (fd >= 0)
		send_away(fd, cred.uid, EMFILE, "worker has no descriptor left");
	apps->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void attach_drop_silent(struct apps *apps)
{
	for (struct app *app = apps->all; app; app = app->next)
		if (!app->arena && !app->tracer && apps->stack->now_ns - app->since_ns > SILENT_NS)
			app_detach_later(app, NULL);
}

void attach_accept(struct apps *apps)
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
			send_away(fd, cred.uid, EACCES, why);
			continue;
		}
		if (closer_is_held_by(cred.uid)) {
			send_away(fd, cred.uid, EBUSY, CLOSER_HELD);
			continue;
		}
		/* A process in another pid namespace has no number here; 0 would mean an empty slot. */
		struct user *user = quota_user(&apps->quota, cred.uid);
		const char *no = "no memory for a user";

		if (!user || !attach_new(apps, fd, cred.pid ? cred.pid : 1, user, &no))
			send_away(fd, cred.uid, user ? EUSERS : ENOMEM, no);
		if (user)
			quota_let_go(user); /* the process keeps its own */
	}
}
