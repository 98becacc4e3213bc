/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "apps/message.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <gazelle/abi.h>

bool message_send(int fd, struct gz_message *message, const int *fds, uint32_t count)
{
	union {
		char buf[CMSG_SPACE(GZ_WELCOME_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = message, .iov_len = sizeof(*message) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	message->magic = GZ_ATTACH_MAGIC;
	message->abi_version = GZ_ABI_VERSION;
	if (count) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	return sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(*message);
}

void message_refuse(int fd, int status, const char *why)
{
	struct gz_message message = { .kind = GZ_MESSAGE_REFUSED, .status = status };

	snprintf(message.text, sizeof(message.text), "%s", why);
	(void)message_send(fd, &message, NULL, 0);
}
