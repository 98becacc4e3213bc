/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "apps/message.h"

#include <stdio.h>
#include <sys/socket.h>

#include <gazelle/message.h>

bool message_send(int fd, struct gz_message *message, const int *fds, uint32_t count)
{
	struct gz_envelope envelope;
	const struct msghdr *msg = gz_envelope_message(&envelope, message, fds, count);

	return sendmsg(fd, msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(*message);
}

void message_refuse(int fd, int status, const char *why)
{
	struct gz_message message = { .kind = GZ_MESSAGE_REFUSED, .status = status };

	snprintf(message.text, sizeof(message.text), "%s", why);
	(void)message_send(fd, &message, NULL, 0);
}
