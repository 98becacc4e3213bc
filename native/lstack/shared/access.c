/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "shared/access.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gazelle/group_page.h>

#define GROUPS_EXPECTED 64u

static bool holds(const uint32_t *list, uint32_t count, uint32_t id)
{
	for (uint32_t i = 0; i < count; i++)
		if (list[i] == id)
			return true;
	return false;
}

static bool any_group(const struct gz_group_page *group, const gid_t *gids, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (holds(group->allow_gids, group->allow_gid_count, gids[i]))
			return true;
	return false;
}

/* A process may be in 65,536 groups. One that the kernel does not tell us of is in none. */
static bool any_other_group(const struct gz_group_page *group, int fd)
{
	gid_t few[GROUPS_EXPECTED], *many;
	socklen_t len = sizeof(few);
	bool found = false;

	if (!getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, few, &len))
		return any_group(group, few, len / (uint32_t)sizeof(gid_t));
	if (errno != ERANGE)
		return false;
	many = malloc(len);
	if (many && !getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, many, &len))
		found = any_group(group, many, len / (uint32_t)sizeof(gid_t));
	free(many);
	return found;
}

bool access_may_attach(const struct gz_group_page *group, int fd, const struct ucred *cred)
{
	if (group->allow_everybody || !cred->uid || holds(group->allow_uids, group->allow_uid_count, cred->uid))
		return true;
	return any_group(group, &cred->gid, 1) || any_other_group(group, fd);
}

int access_share_file(const struct gz_group_page *group, int fd)
{
	if (group->file_gid == GZ_NO_ID)
		return fchmod(fd, 0644) ? -errno : 0;
	return fchown(fd, (uid_t)-1, group->file_gid) || fchmod(fd, 0640) ? -errno : 0;
}

int access_share_socket(const struct gz_group_page *group, const char *path)
{
	if (group->file_gid == GZ_NO_ID)
		return chmod(path, 0666) ? -errno : 0;
	return chown(path, (uid_t)-1, group->file_gid) || chmod(path, 0660) ? -errno : 0;
}
