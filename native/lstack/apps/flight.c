/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "apps/flight.h"

#include <linux/sock_diag.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gazelle/control.h>

#include "arena/quota.h"
#include "core/passed_fd.h"

/* The kernel charges a socket with more than this for each message that has not been read. */
#define MESSAGE_LEAST 512u

/* A control socket whose process is detached but has not read all, and may keep its end for as long as it likes. */
struct landing {
	struct landing *next;
	struct user *user;
	int fd;
	uint32_t flying;
};

static void give(struct user *user, uint32_t *flying, uint32_t left)
{
	for (; *flying > left; --*flying)
		quota_give(user, QUOTA_FLIGHT);
}

/* What has been read is under way no more. How much that is the kernel tells in bytes: an upper bound, exact when all is read. */
static void settle(struct user *user, int fd, uint32_t *flying)
{
	uint32_t info[SK_MEMINFO_VARS] = { 0 };
	socklen_t size = sizeof(info);

	if (*flying && !getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &size))
		give(user, flying, info[SK_MEMINFO_WMEM_ALLOC] / MESSAGE_LEAST * GZ_WELCOME_FDS);
}

bool flight_charge(struct user *user, int fd, uint32_t *flying, uint32_t count)
{
	uint32_t before;

	settle(user, fd, flying);
	before = *flying;
	while (*flying < before + count) {
		if (!quota_take(user, QUOTA_FLIGHT)) {
			give(user, flying, before);
			return false;
		}
		++*flying;
	}
	return true;
}

bool flight_end(struct landing **landings, struct user *user, int fd, uint32_t *flying)
{
	struct landing *landing = NULL;

	settle(user, fd, flying);
	if (*flying)
		landing = malloc(sizeof(*landing));
	if (!landing) {
		give(user, flying, 0);
		return false;
	}
	*landing = (struct landing){ *landings, user, fd, *flying };
	*landings = landing;
	quota_hold(user);
	(void)shutdown(fd, SHUT_RDWR);
	return true;
}

void flight_look(struct landing **landings)
{
	while (*landings) {
		struct landing *landing = *landings;

		settle(landing->user, landing->fd, &landing->flying);
		if (landing->flying) {
			landings = &landing->next;
			continue;
		}
		*landings = landing->next;
		passed_fd_close(landing->fd, landing->user->uid);
		quota_give(landing->user, QUOTA_FILES);
		quota_let_go(landing->user);
		free(landing);
	}
}
