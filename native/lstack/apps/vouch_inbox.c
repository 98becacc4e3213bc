/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "apps/vouch_inbox.h"

#include <stdlib.h>
#include <unistd.h>

#include "apps/app.h"
#include "arena/quota.h"
#include "core/passed_fd.h"
#include "socket/vouch.h"

/* What a process has sent and not asked for yet, at most: one for each of its threads that is just about to ask. */
#define WAITING_MAX 64u

void vouch_inbox_put(struct app *app, uint32_t number, int fd)
{
	struct vouch *vouch, **last = &app->vouches;
	uint32_t waiting = 0;

	for (; *last; last = &(*last)->next)
		waiting++;
	vouch = waiting < WAITING_MAX ? calloc(1, sizeof(*vouch)) : NULL;
	if (!vouch) {
		passed_fd_close(fd, app->user->uid);
		app_detach_later(app, waiting < WAITING_MAX ? NULL : "vouches, but asks for nothing");
		return;
	}
	/*
	 * Nothing is kept that cannot have a port: the process's end of its control socket, say, which would keep it attached after its
	 * end.
	 */
	if (fd >= 0 && !vouch_has_ports(fd)) {
		passed_fd_close(fd, app->user->uid);
		fd = -1;
		vouch->worthless = true;
	} else if (fd >= 0 && !quota_take(app->user, QUOTA_FILES)) {
		passed_fd_close(fd, app->user->uid);
		fd = -1;
	} else if (fd >= 0) {
		vouch->payer = app->user;
		quota_hold(app->user);
	}
	vouch->number = number;
	vouch->fd = fd;
	*last = vouch;
}

void vouch_inbox_clear(struct app *app)
{
	while (app->vouches) {
		struct vouch *vouch = app->vouches;

		app->vouches = vouch->next;
		vouch_drop(&app->apps->sockets, vouch);
	}
}

struct vouch *vouch_inbox_take(struct app *app, uint32_t number)
{
	for (struct vouch **p = &app->vouches; *p; p = &(*p)->next) {
		struct vouch *vouch = *p;

		if (vouch->number != number)
			continue;
		*p = vouch->next;
		vouch->next = NULL;
		return vouch;
	}
	return NULL;
}
