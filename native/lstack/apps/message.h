/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Messages of a control socket (gazelle/control.h), as the worker sends and receives them. Nothing here waits. */
#ifndef LSTACK_MESSAGE_H
#define LSTACK_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/control.h>

/* Sends one message with up to GZ_WELCOME_FDS descriptors. False: the process does not read, or is gone. */
bool message_send(int fd, struct gz_message *message, const int *fds, uint32_t count);

/*
 * Sends REFUSED, the last message to a process. Close the socket by passed_fd_close: it reads what the process has sent before,
 * which, left unread, would make the process see a reset instead of this message.
 */
void message_refuse(int fd, int status, const char *why);

#endif
