/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The control socket between an attached process and a worker: SOCK_SEQPACKET at <run_dir>/worker.<queue_id>.sock.
 * Every message is one struct gz_message, descriptors by SCM_RIGHTS. EOF is death: of the process for the worker, of the
 * worker for the process.
 *
 *   application                               worker
 *   HELLO {magic, abi}                   ->
 *                                        <-   WELCOME {queue_id, attach_id, sizes} + fds: arena, channel, eventfd, page
 *   EVENT_QUEUE {number} + fd: eventfd   ->        (no answer; sent before the queue first sleeps)
 *   FORK {} + fd: end of a socketpair    ->        the other end now stands for the child: it holds all this process holds
 *                                        <-   FORKED {status}
 *   CLAIM {magic, abi}  (child, on its end of that socketpair)  ->
 *                                        <-   WELCOME ...   (same arena, a channel of its own)
 * A worker that cannot serve answers REFUSED {status = errno, text} and closes.
 */
#ifndef GAZELLE_ATTACH_H
#define GAZELLE_ATTACH_H

#include <stdint.h>

#define GZ_ATTACH_MAGIC 0x68636174617a67ull

enum gz_message_kind {
	GZ_MESSAGE_HELLO = 1,
	GZ_MESSAGE_WELCOME = 2,
	GZ_MESSAGE_REFUSED = 3,
	GZ_MESSAGE_EVENT_QUEUE = 4,
	GZ_MESSAGE_FORK = 5,
	GZ_MESSAGE_FORKED = 6,
	GZ_MESSAGE_CLAIM = 7
};

enum { GZ_WELCOME_ARENA = 0, GZ_WELCOME_CHANNEL = 1, GZ_WELCOME_EVENTFD = 2, GZ_WELCOME_PAGE = 3, GZ_WELCOME_FDS = 4 };

struct gz_message {
	uint64_t magic; /* GZ_ATTACH_MAGIC */
	uint32_t abi_version;
	uint32_t kind;
	uint32_t number;    /* EVENT_QUEUE: which; WELCOME: queue_id */
	uint32_t attach_id; /* WELCOME: this process at this worker */
	int32_t status;     /* REFUSED, FORKED: 0 or an errno */
	uint32_t pad;
	uint64_t arena_size;   /* WELCOME, bytes */
	uint64_t channel_size; /* WELCOME, bytes */
	char text[64];         /* REFUSED: why */
};
_Static_assert(sizeof(struct gz_message) == 112, "one control message");

#endif
