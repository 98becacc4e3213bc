/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "privileges.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Nothing is left that an exec could give back. Threads made later have what we have. */
int privileges_bound(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2];

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) ||
	    syscall(SYS_capget, &header, sets))
		return -errno;
	/* Shrinking the bounding set takes a capability; a process without capabilities gets none, whatever the set says. */
	for (unsigned long cap = 0; !prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); cap++)
		;
	sets[0].inheritable = sets[1].inheritable = 0;
	return syscall(SYS_capset, &header, sets) ? -errno : 0;
}

int privileges_drop(uint32_t uid, uint32_t gid)
{
	if (gid && (setgroups(0, NULL) || setresgid(gid, gid, gid)))
		return -errno;
	/* Leaving root by setresuid clears every capability. All threads of the process follow, DPDK's too. */
	if (uid && setresuid(uid, uid, uid))
		return -errno;
	if (uid && (setuid(0) == 0 || geteuid() != uid))
		return -EPERM;
	/* Other processes of this user see nothing of our memory, and no core file has it. */
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ? -errno : 0;
}
