/* SPDX-License-Identifier: MulanPSL-2.0 */
/* How the parts are put together: what a lower part calls without knowing which of the higher ones does it. */
#include "core/attachment.h"
#include "core/eventq.h"
#include "core/fdtable.h"
#include "core/inside.h"
#include "core/sock.h"
#include "core/watch.h"
#include "process/fork.h"
#include "samehost/introduce.h"
#include "stream/listen.h"
#include "stream/stream.h"
#include "udp/dgram_ops.h"
#include "wait/epoll.h"
#include "wait/epoll_set.h"
#include "worker/answer.h"
#include "worker/group.h"
#include "worker/peer.h"
#include "samehost/peer.h"

const struct sock_ops *const sock_ops[SOCK_KINDS] = {
	[KIND_LISTENER] = &listen_ops,
	[KIND_STREAM] = &stream_ops,
	[KIND_DGRAM] = &dgram_ops,
};

const struct fd_ops *const fd_ops[FD_TAGS] = {
	[FD_SOCK] = &sock_fd_ops,
	[FD_EPOLL] = &epoll_fd_ops,
};

const struct watch_ops watch = {
	.activate = epoll_activate,
	.claim = epoll_claim,
	.unclaim = epoll_unclaim,
	.closing = epoll_closing,
	.forget = epoll_forget,
};

const struct peer_ops *const peer_ops[PEER_KINDS] = {
	[PEER_WORKER] = &worker_peer,
	[PEER_PROGRAM] = &program_peer,
};

void (*const answer_unasked)(struct attachment *a, const struct gz_message *message, int *fds, int count) = introduce;

void (*const group_opened)(void) = fork_prepare_library;

void (*const inside_wake)(uint32_t queue) = eventq_wake;
