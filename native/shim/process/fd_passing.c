/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "process/fd_passing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/fdtable.h"
#include "process/passed_sock.h"
#include "core/real.h"
#include "core/sock.h"

#define LIBRARY "/liblstack.so"

/* ------------------------------------------------------------------ sending */

static bool is_stack(int fd)
{
	struct sock *s = fd_sock(fd);

	return s && sock_kind(s) != KIND_FRESH;
}

/* Descriptor i of a control message, *at is where it stands. False: there are no more. */
static bool descriptor(struct cmsghdr *c, uint32_t i, char **at, int *fd)
{
	size_t offset = CMSG_LEN(i * sizeof(int));

	if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || offset + sizeof(int) > c->cmsg_len)
		return false;
	*at = (char *)c + offset;
	memcpy(fd, *at, sizeof(*fd));
	return true;
}

bool fd_passing_concerns(const struct msghdr *msg)
{
	if (!msg || !msg->msg_control)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR((struct msghdr *)msg, c)) {
		char *at;
		int fd;

		if (c->cmsg_len > (size_t)((char *)msg->msg_control + msg->msg_controllen - (char *)c))
			return false; /* the kernel says EINVAL */
		for (uint32_t i = 0; descriptor(c, i, &at, &fd); i++)
			if (is_stack(fd))
				return true;
	}
	return false;
}

/* True if that process runs with this library, as far as can be told. */
static bool is_attachable(pid_t pid)
{
	char path[32], line[4096];
	bool found = false;
	FILE *maps;

	if (pid == getpid())
		return true;
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	maps = fopen(path, "re");
	if (!maps)
		return errno == ENOENT; /* it made the socket and went; its descendants have it */
	while (!found && fgets(line, sizeof(line), maps))
		found = strstr(line, LIBRARY);
	fclose(maps);
	return found;
}

/* The process that made the other end of a UNIX socket reads there, or its child does. */
static bool reaches_attached(int fd)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer), domain_len = sizeof(int);
	int domain = -1;

	return !REAL(getsockopt)(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) && domain == AF_UNIX &&
	       !REAL(getsockopt)(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && peer.pid > 0 && is_attachable(peer.pid);
}

/* Puts packed sockets in the place of descriptors. 0 or -errno; packed sockets[0..*count) are to be closed in any case. */
static int wrap(struct msghdr *msg, int *packed, uint32_t *count)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		char *at;
		int fd;

		for (uint32_t i = 0; descriptor(c, i, &at, &fd); i++) {
			if (!is_stack(fd))
				continue;
			if (*count == PASSED_SOCK_FDS)
				return -EINVAL; /* more than the kernel takes */
			fd = passed_sock_pack(fd);
			if (fd < 0)
				return fd;
			memcpy(at, &fd, sizeof(fd));
			packed[(*count)++] = fd;
		}
	}
	return 0;
}

ssize_t fd_passing_send(int fd, const struct msghdr *msg, int flags)
{
	struct msghdr copy = *msg;
	int packed[PASSED_SOCK_FDS];
	uint32_t count = 0;
	ssize_t sent;

	if (!reaches_attached(fd))
		return -EOPNOTSUPP;
	copy.msg_control = malloc(msg->msg_controllen);
	if (!copy.msg_control)
		return -ENOMEM;
	memcpy(copy.msg_control, msg->msg_control, msg->msg_controllen);
	sent = wrap(&copy, packed, &count);
	if (!sent) {
		sent = REAL(sendmsg)(fd, &copy, flags);
		if (sent < 0)
			sent = -errno;
	}
	while (count > 0)
		UNCANCELLED(close, packed[--count]);
	free(copy.msg_control);
	return sent;
}

/* ------------------------------------------------------------------ receiving */

/* From descriptor `i` on the message loses them; SCM_RIGHTS is the last the kernel puts into a message. */
static void cut(struct msghdr *msg, struct cmsghdr *c, uint32_t i)
{
	char *at;
	int fd;

	for (uint32_t k = i; descriptor(c, k, &at, &fd); k++)
		UNCANCELLED(close, fd);
	if (i)
		c->cmsg_len = CMSG_LEN(i * sizeof(int));
	msg->msg_controllen = (size_t)((char *)c - (char *)msg->msg_control) + (i ? CMSG_SPACE(i * sizeof(int)) : 0);
	msg->msg_flags |= MSG_CTRUNC;
}

void fd_passing_received(struct msghdr *msg)
{
	if (!msg->msg_control || !msg->msg_controllen)
		return;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		char *at;
		int fd;

		for (uint32_t i = 0; descriptor(c, i, &at, &fd); i++) {
			if (!passed_sock_unpack(fd))
				continue;
			cut(msg, c, i);
			return;
		}
	}
}
