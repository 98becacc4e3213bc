/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "app.h"
#include "attach.h"
#include "conn.h"
#include "listener.h"
#include "pair.h"
#include "worker.h"

/* Of the processes that share a listener the one to accept: one that waits for it now, else any that holds it. */
static struct app *holder(const struct listener_member *member)
{
	uint32_t n = member->sock->n;
	struct app *any = NULL;

	for (struct app *app = member->sock->arena->apps; app; app = app->arena_next) {
		if (!app->channel || app->doomed || !app_holds(app, n))
			continue;
		if (gz_load(&app->channel->interest[n]))
			return app;
		any = app;
	}
	return any;
}

static int make_memory(void)
{
	int fd = memfd_create("gazelle-pair", MFD_CLOEXEC | MFD_ALLOW_SEALING), err;
	struct gz_pair *pair;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)GZ_PAIR_SIZE) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		goto err_close;
	pair = mmap(NULL, sizeof(*pair), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (pair == MAP_FAILED)
		goto err_close;
	pair->magic = GZ_PAIR_MAGIC;
	pair->abi_version = GZ_ABI_VERSION;
	pair->socks = GZ_PAIR_SOCKS;
	munmap(pair, sizeof(*pair));
	return fd;

err_close:
	err = -errno;
	close(fd);
	return err;
}

static int introduce(struct app *app, struct app *other, struct gz_message *answer)
{
	int fds[GZ_PAIRED_FDS], control[2], err;

	fds[GZ_PAIRED_MEMORY] = make_memory();
	if (fds[GZ_PAIRED_MEMORY] < 0)
		return fds[GZ_PAIRED_MEMORY];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control)) {
		err = -errno;
		goto err_close_memory;
	}
	/* The one that listens first: if it cannot be told, the other goes by the kernel or by TCP. */
	answer->number = 1;
	answer->attach_id = app->slot;
	fds[GZ_PAIRED_CONTROL] = control[1];
	err = -EPIPE;
	if (!attach_send(other, answer, fds, GZ_PAIRED_FDS))
		goto err_close_control;
	answer->number = 0;
	answer->attach_id = other->slot;
	fds[GZ_PAIRED_CONTROL] = control[0];
	if (!attach_send(app, answer, fds, GZ_PAIRED_FDS))
		app_doom(app, NULL);
	err = 0;

err_close_control:
	close(control[0]);
	close(control[1]);
err_close_memory:
	close(fds[GZ_PAIRED_MEMORY]);
	return err;
}

void pair_introduce(struct app *app, const struct gz_message *request)
{
	struct gz_message answer = { .kind = GZ_MESSAGE_PAIRED, .port = request->port };
	struct listener_member *member;
	struct app *other = NULL;
	uint32_t addr_be;
	int err = -ECONNREFUSED;

	memcpy(answer.addr, request->addr, sizeof(answer.addr));
	memcpy(&addr_be, request->addr + 12, sizeof(addr_be));
	member = listener_find(app->apps, addr_be, request->port);
	if (member)
		other = holder(member);
	if (other == app)
		err = -EOPNOTSUPP; /* a process that talks to itself goes by TCP */
	else if (other) {
		answer.sock = member->sock->n;
		err = introduce(app, other, &answer);
	}
	if (!err)
		return;
	answer.status = -err;
	if (!attach_send(app, &answer, NULL, 0))
		app_doom(app, NULL);
}
