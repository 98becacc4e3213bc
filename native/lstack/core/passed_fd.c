/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "core/passed_fd.h"

#include <sys/socket.h>
#include <unistd.h>

void passed_fd_close(int fd)
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
