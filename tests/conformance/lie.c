/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A preloaded library that gets recv() wrong, to prove that the harness notices: $LIE is "errno", "hang" or "die". */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

ssize_t recv(int fd, void *data, size_t len, int flags)
{
	const char *lie = getenv("LIE");

	(void)fd, (void)data, (void)len, (void)flags;
	if (lie && !strcmp(lie, "hang"))
		pause();
	if (lie && !strcmp(lie, "die"))
		abort();
	errno = ENOTSUP;
	return -1;
}
