/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/atomic.h>
#include <gazelle/control.h>
#include <gazelle/same_host.h>

#include "apps/app.h"
#include "apps/flight.h"
#include "apps/message.h"
#include "socket/conn.h"
#include "socket/listener.h"
#include "apps/introduce.h"
#include "socket/vouch.h"
#include "core/worker.h"

/* Processes of a program that a pair is made with at most; those it forks later join by themselves. */
#define MEMBERS 64u

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

/*
 * All processes of the program that listens, for any may come to accept. Those that have used a socket come first: a program
 * may have forked many helpers that never do.
 */
static uint32_t members_of(const struct arena *arena, struct app **members)
{
	uint32_t count = 0;

	for (int claimed = 1; claimed >= 0; claimed--)
		for (struct app *app = arena->apps; app && count < MEMBERS; app = app->arena_next)
			if (!app->leaving && !app->carrier && (app->channel != NULL) == claimed)
				members[count++] = app;
	return count;
}

static void enter(struct gz_pair_side *side, uint32_t member)
{
	gz_store(&side->member[member], GZ_MEMBER(1, GZ_MEMBER_ALIVE));
	gz_add(&side->processes, 1);
}

/* Tells one process of the listening side. Returns the other end of its member socket, or -1: it does not hear us. */
static int tell(struct app *to, const struct gz_message *answer, uint32_t member, int memory)
{
	struct gz_message message = *answer;
	int fds[GZ_PAIRED_FDS], ends[2];
	bool told;

	if (!flight_charge(to->user, to->control_fd, &to->flying, GZ_PAIRED_FDS) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return -1;
	message.number = 1;
	message.member = member;
	message.other = 0;
	fds[GZ_PAIRED_MEMORY] = memory;
	fds[GZ_PAIRED_SOCKET] = ends[1];
	told = message_send(to->control_fd, &message, fds, GZ_PAIRED_FDS);
	close(ends[1]);
	if (told)
		return ends[0];
	close(ends[0]);
	return -1;
}

/*
 * The listening side is told first: if no process of it can be, the connecting one goes by the kernel or by TCP. It gets the
 * first member socket with the answer, the others after it, each in a MEMBER message.
 */
static int introduce_to(struct app *app, const struct arena *arena, struct gz_message *answer)
{
	struct app *members[MEMBERS];
	uint32_t count = members_of(arena, members), first = count;
	int sockets[MEMBERS], memory, err = -EPIPE;
	uint16_t told = 0;
	struct gz_pair *pair;

	if (!flight_charge(app->user, app->control_fd, &app->flying, GZ_PAIRED_FDS + count))
		return -EMFILE;
	memory = make_memory();
	if (memory < 0)
		return memory;
	pair = mmap(NULL, sizeof(*pair), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (pair == MAP_FAILED) {
		err = -errno;
		goto err_close_memory;
	}
	enter(&pair->side[0], 0);
	for (uint32_t m = 0; m < count; m++)
		enter(&pair->side[1], m);
	for (uint32_t m = count; m-- > 0;) {
		sockets[m] = tell(members[m], answer, m, memory);
		if (sockets[m] >= 0) {
			first = m;
			told++;
			continue;
		}
		gz_store(&pair->side[1].member[m], GZ_MEMBER(1, GZ_MEMBER_FREE));
		gz_add(&pair->side[1].processes, (uint32_t)-1);
	}
	for (uint32_t m = first; m < count; m++) {
		struct gz_message message = { .kind = m == first ? GZ_MESSAGE_PAIRED : GZ_MESSAGE_MEMBER,
			                      .member = m,
			                      .life = 1 };
		int fds[GZ_PAIRED_FDS] = { memory, sockets[m] };

		if (sockets[m] < 0)
			continue;
		if (m == first) {
			message = *answer;
			message.other = m;
			message.more_members = told - 1;
			err = 0;
		}
		if (!message_send(app->control_fd, &message, m == first ? fds : &sockets[m], m == first ? GZ_PAIRED_FDS : 1))
			app_detach_later(app, NULL);
	}
	for (uint32_t m = 0; m < count; m++)
		if (sockets[m] >= 0)
			close(sockets[m]);
	munmap(pair, sizeof(*pair));

err_close_memory:
	close(memory);
	return err;
}

void introduce(struct app *app, const struct gz_message *request, int fd)
{
	struct gz_message answer = { .kind = GZ_MESSAGE_PAIRED, .port = request->port, .life = 1, .uid = app->user->uid };
	struct listener_member *member;
	int err = -ECONNREFUSED;

	memcpy(answer.addr, request->addr, sizeof(answer.addr));
	answer.netns = fd < 0 ? 0 : vouch_netns(fd);
	member = listener_find(&app->apps->sockets, request->addr, request->port, answer.netns);
	if (member)
		err = introduce_to(app, member->sock->arena, &answer);
	if (!err)
		return;
	answer.status = -err;
	if (!message_send(app->control_fd, &answer, NULL, 0))
		app_detach_later(app, NULL);
}
