/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "privileges.h"

#include <errno.h>
#include <grp.h>
#include <sys/prctl.h>
#include <unistd.h>

int privileges_drop(uint32_t uid, uint32_t gid)
{
	if (gid && (setgroups(0, NULL) || setresgid(gid, gid, gid)))
		return -errno;
	/* Leaving root by setresuid clears every capability. All threads of the process follow, DPDK's too. */
	if (uid && setresuid(uid, uid, uid))
		return -errno;
	if (uid && (setuid(0) == 0 || geteuid() != uid))
		return -EPERM;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : 0;
}
