/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * How the messages of control.h are sent and received, for worker, library and tests alike. Descriptors travel as SCM_RIGHTS.
 * The caller makes the system call and closes what it does not want; nothing here waits.
 */
#ifndef GAZELLE_MESSAGE_H
#define GAZELLE_MESSAGE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <gazelle/abi.h>
#include <gazelle/control.h>

#define GZ_SCM_PIDFD 4 /* SCM_PIDFD, since Linux 6.5: a socket that was sent may have been told to give one */

/* What each kind brings: at least and at most so many descriptors; `can_fail`: none if it tells a failure (`status`). */
struct gz_message_fds {
	uint8_t least, most;
	bool can_fail;
};

/* True if a message may bring so many descriptors. */
static inline bool gz_message_brings(const struct gz_message *message, uint32_t fds)
{
	static const struct gz_message_fds none, of[] = {
		[GZ_MESSAGE_WELCOME] = { GZ_WELCOME_FDS, GZ_WELCOME_FDS, false },
		[GZ_MESSAGE_EVENT_QUEUE] = { 1, 1, false },
		[GZ_MESSAGE_FORKED] = { 1, 1, true },
		[GZ_MESSAGE_PAIR] = { 0, 1, false },
		[GZ_MESSAGE_PAIRED] = { GZ_PAIRED_FDS, GZ_PAIRED_FDS, true },
		[GZ_MESSAGE_MEMBER] = { 1, 1, false },
		[GZ_MESSAGE_ADOPT] = { 0, 1, false },
		[GZ_MESSAGE_VOUCH] = { 0, 1, false }, /* none: the receiver had no descriptor left */
	};
	struct gz_message_fds right = message->kind < sizeof(of) / sizeof(of[0]) ? of[message->kind] : none;

	if (right.can_fail && message->status)
		right = none;
	return fds >= right.least && fds <= right.most;
}

/* What recvmsg gave: 0, -EMSGSIZE (not a message), -EBADMSG (not gazelled's), -EPROTO (of another version). */
static inline int gz_message_check(const struct gz_message *message, ssize_t len)
{
	if (len != (ssize_t)sizeof(*message))
		return -EMSGSIZE;
	if (message->magic != GZ_ATTACH_MAGIC)
		return -EBADMSG;
	return message->abi_version == GZ_ABI_VERSION ? 0 : -EPROTO;
}

/* Lets `count` descriptors, at least one, go with a message; its msg_control has room for them. */
static inline void gz_fds_put(struct msghdr *msg, const int *fds, uint32_t count)
{
	struct cmsghdr *c = (struct cmsghdr *)msg->msg_control;

	msg->msg_controllen = CMSG_SPACE(count * sizeof(int));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(c), fds, count * sizeof(int));
}

/* How many descriptors came with a message just read; the first `most` of them are copied to `fds`. */
static inline uint32_t gz_fds_take(struct msghdr *msg, int *fds, uint32_t most)
{
	uint32_t count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || (c->cmsg_type != SCM_RIGHTS && c->cmsg_type != GZ_SCM_PIDFD))
			continue;
		for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int), count++)
			if (count < most)
				memcpy(fds + count, (const char *)c + at, sizeof(int));
	}
	return count;
}

/* One message on its way, with room for the descriptors that any may bring and for credentials that may come along. */
struct gz_envelope {
	struct msghdr msg;
	struct iovec iov;
	union {
		char buf[CMSG_SPACE(GZ_WELCOME_FDS * sizeof(int)) + CMSG_SPACE(32)];
		struct cmsghdr align;
	} room;
};

/* Descriptors that can come in it at most: a hostile sender may fill the room for credentials with them, too. */
#define GZ_ENVELOPE_FDS (sizeof(((struct gz_envelope *)0)->room) / sizeof(int))

/* For recvmsg. */
static inline struct msghdr *gz_envelope_open(struct gz_envelope *envelope, void *bytes, size_t len)
{
	envelope->iov = (struct iovec){ .iov_base = bytes, .iov_len = len };
	envelope->msg = (struct msghdr){ .msg_iov = &envelope->iov,
		                         .msg_iovlen = 1,
		                         .msg_control = envelope->room.buf,
		                         .msg_controllen = sizeof(envelope->room) };
	return &envelope->msg;
}

/* For sendmsg, with at most GZ_WELCOME_FDS descriptors. */
static inline struct msghdr *gz_envelope_fill(struct gz_envelope *envelope, const void *bytes, size_t len,
                                              const int *fds, uint32_t count)
{
	struct msghdr *msg = gz_envelope_open(envelope, (void *)(uintptr_t)bytes, len);

	if (count) {
		gz_fds_put(msg, fds, count);
	} else {
		msg->msg_control = NULL;
		msg->msg_controllen = 0;
	}
	return msg;
}

/* As gz_envelope_fill, of a message that is of this version. */
static inline struct msghdr *gz_envelope_message(struct gz_envelope *envelope, struct gz_message *message,
                                                 const int *fds, uint32_t count)
{
	message->magic = GZ_ATTACH_MAGIC;
	message->abi_version = GZ_ABI_VERSION;
	return gz_envelope_fill(envelope, message, sizeof(*message), fds, count);
}

#endif
