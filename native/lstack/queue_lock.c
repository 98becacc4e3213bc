/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "queue_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int queue_lock(const char *run_dir, uint32_t queue_id)
{
	/*
	 * A lock of the open file (not of the process), so that others may ask for it without taking it for a moment. The
	 * file is never mapped: a process that reads our memory by /proc as we die would keep a mapping, and the lock, alive.
	 */
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char path[160];
	int fd, err;

	snprintf(path, sizeof(path), "%s/worker.%u.lock", run_dir, queue_id);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (!fcntl(fd, F_OFD_SETLK, &whole))
		return 0; /* and fd stays open */
	err = errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
	close(fd);
	return err;
}
