/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "control.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/wake.h>

#include "real.h"
#include "shim.h"

void control_put_fds(struct msghdr *msg, const int *fds, uint32_t count)
{
	struct cmsghdr *c = msg->msg_control;

	msg->msg_controllen = CMSG_SPACE(count * sizeof(int));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(c), fds, count * sizeof(int));
}

bool control_is_pair_end(int fd)
{
	int domain = -1, type = -1;
	socklen_t len = sizeof(int);

	return !REAL(getsockopt)(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) &&
	       !REAL(getsockopt)(fd, SOL_SOCKET, SO_TYPE, &type, &len) && domain == GZ_WAKE_DOMAIN && type == GZ_WAKE_TYPE;
}

bool control_is_workers(int fd)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	if (!control_is_pair_end(fd) || REAL(getsockopt)(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || len != sizeof(peer))
		return false;
	return peer.uid == 0 || peer.uid == shim.group->run_uid || peer.uid == shim.group_uid;
}

int control_send(int control_fd, struct gz_message *message, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = message, .iov_len = sizeof(*message) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	message->magic = GZ_ATTACH_MAGIC;
	message->abi_version = GZ_ABI_VERSION;
	if (fd >= 0) {
		msg.msg_control = control.buf;
		control_put_fds(&msg, &fd, 1);
	}
	return UNCANCELLED(sendmsg, control_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(*message) ? 0
	                                                                                                        : -errno;
}

void control_close(int *fds, int count)
{
	while (count > 0)
		if (fds[--count] >= 0)
			UNCANCELLED(close, fds[count]);
}

int control_receive(int control_fd, struct gz_message *message, int *fds, int *count)
{
	union {
		char buf[CMSG_SPACE(GZ_WELCOME_FDS * sizeof(int)) + CMSG_SPACE(32)]; /* credentials may come along */
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = message, .iov_len = sizeof(*message) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)
	};
	ssize_t n = UNCANCELLED(recvmsg, control_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	*count = 0;
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		/* More come than any message has if the other program of a pair sends them: the room for credentials is
		 * filled with them, too. */
		for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
			int fd;

			memcpy(&fd, (const char *)c + at, sizeof(fd));
			if (*count < (int)GZ_WELCOME_FDS)
				fds[(*count)++] = fd;
			else
				UNCANCELLED(close, fd);
		}
	}
	if (!n) { /* the end; or an empty message, which may bring descriptors all the same */
		control_close(fds, *count);
		return -EPIPE;
	}
	if (n != (ssize_t)sizeof(*message) || message->magic != GZ_ATTACH_MAGIC || message->abi_version != GZ_ABI_VERSION) {
		control_close(fds, *count);
		return -EPROTO;
	}
	return 1;
}
