/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "stream/accept.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "core/sockopt.h"
#include "core/real.h"
#include "core/sock.h"
#include "core/window.h"
#include "samehost/accept.h"
#include "wait/wait.h"
#include "worker/requests.h"

/* The worker's accept queue, once it has opened the listener. */
struct gz_accept_queue *accept_queue(struct entry *e, struct attachment *a)
{
	struct gz_accept_queue *queue = __atomic_load_n(&e->queue, __ATOMIC_ACQUIRE);
	struct gz_end *worker = &attachment_sock(a, e->n)->worker;
	uint32_t block, slots;

	/* Pairs with its release: the block is named. A worker may also take the port from us, and the block with it. */
	if (!(gz_load_acquire(&worker->flags) & GZ_WORKER_LISTENING))
		return NULL;
	if (queue)
		return queue;
	block = gz_load(&worker->aux[GZ_AUX_ACCEPT_BLOCK]);
	queue = (struct gz_accept_queue *)window_block(a, block);
	if (!queue)
		return NULL;
	slots = queue->mask + 1;
	if (!slots || slots & (slots - 1) || sizeof(*queue) + (uint64_t)slots * 4 > GZ_BLOCK_SIZE(block))
		return NULL;
	e->mask = slots - 1;
	__atomic_store_n(&e->queue, queue, __ATOMIC_RELEASE);
	return queue;
}

bool accept_queue_is_empty(struct gz_accept_queue *queue)
{
	/* The acquire pairs with the worker's release of the head: the slots before it are written. */
	return gz_load_acquire(&queue->head) == gz_load(&queue->tail);
}

/* Pops one connection; several threads and processes may try at once. 0 = empty. */
static uint32_t queue_pop(struct gz_accept_queue *queue, uint32_t mask)
{
	for (;;) {
		uint32_t t = gz_load(&queue->tail), n;

		if (t == gz_load_acquire(&queue->head))
			return 0;
		n = gz_load(&queue->slot[t & mask]);
		if (gz_cas(&queue->tail, &t, t + 1))
			return n % GZ_SOCKS_MAX;
	}
}

bool accept_ready(struct sock *s)
{
	struct listener *listener = listener_of(s);

	if (listener->shut)
		return true;
	if (pair_waiting(s))
		return true;
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct entry *e = &listener->entries.entry[i];
		struct attachment *a = __atomic_load_n(&e->attachment, __ATOMIC_ACQUIRE);
		struct gz_accept_queue *queue = a ? accept_queue(e, a) : NULL;

		if (queue && !accept_queue_is_empty(queue))
			return true;
	}
	return false;
}

/* A popped connection becomes a socket under `newfd`. `name`: a pair's. */
static int adopt(struct sock *s, struct attachment *a, uint32_t n, const struct gz_name *name, int newfd,
                 struct sockaddr *addr, socklen_t *len, int flags)
{
	struct gz_request request = { .op = GZ_REQUEST_CLAIM, .sock = n };
	struct sock *fresh = sock_adopt(a, n, s->family, flags);
	struct endpoint peer = { 0 };

	attachment_hold(a, n, fresh);
	if (!a->pair)
		(void)request_post(a, &request); /* a worker that died leaves a dead connection, as a reset would */
	if (!fresh) {
		attachment_let_go(a, n);
		return -ENOMEM;
	}
	if (name)
		fresh->name = *name;
	memcpy(peer.addr, sock_name(fresh)->peer_addr, sizeof(peer.addr));
	peer.port = sock_name(fresh)->peer_port;
	endpoint_to(&peer, s->family, addr, len);
	options_inherit(fresh, &s->options);
	fd_forget(newfd);
	fd_put(newfd, (uintptr_t)fresh);
	return newfd;
}

/* One connection from another program on this host, -EAGAIN if there is none. */
static int accept_pair(struct sock *s, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct gz_name name;
	struct attachment *a;
	uint32_t n;
	int fd;

	if (!pair_waiting(s))
		return -EAGAIN;
	fd = sock_template(s->family, flags & SOCK_CLOEXEC);
	if (fd < 0)
		return fd;
	if (pair_accept(s, &a, &n, &name))
		return adopt(s, a, n, &name, fd, addr, len, flags);
	(void)UNCANCELLED(close, fd);
	return -EAGAIN;
}

/* One connection from the stack, -EAGAIN if there is none. */
static int accept_stack(struct sock *s, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct listener *listener = listener_of(s);
	int local = accept_pair(s, addr, len, flags);

	if (local != -EAGAIN)
		return local;
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct entry *e = &listener->entries.entry[(listener->turn + i) % shim.workers];
		struct attachment *a = __atomic_load_n(&e->attachment, __ATOMIC_ACQUIRE);
		struct gz_accept_queue *queue = a ? accept_queue(e, a) : NULL;
		uint32_t n;
		int fd;

		if (!queue || accept_queue_is_empty(queue))
			continue;
		if (!a->channel)
			continue; /* a child whose claim failed; the attachment is dead */
		/* The descriptor first: at the limit the connection stays where it is. */
		fd = sock_template(s->family, flags & SOCK_CLOEXEC);
		if (fd < 0)
			return fd;
		n = queue_pop(queue, e->mask);
		if (!n) {
			(void)UNCANCELLED(close, fd);
			continue; /* another thread or process was faster */
		}
		listener->turn = (listener->turn + i + 1) % shim.workers;
		fd = adopt(s, a, n, NULL, fd, addr, len, flags);
		return fd;
	}
	return -EAGAIN;
}

static int accept_kernel(struct sock *s, int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int got;

	if (fd_sock(fd) != s)
		return -EBADF; /* another thread closed it while we waited */
	got = (int)UNCANCELLED(accept4, fd, addr, len, flags);
	if (got < 0)
		return -errno;
	fd_forget(got);
	fd_set_kernel(got, GZ_KERNEL_CLIENT);
	return got;
}

int accept_start(struct sock *s, int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int got;

	_Static_assert(SOCK_CLOEXEC == O_CLOEXEC && SOCK_NONBLOCK == O_NONBLOCK, "one flag word serves both");
	attachment_claim_all();
	sock_hold(s);
	for (;;) {
		bool both = s->entries->both;

		got = listener_of(s)->shut ? -EINVAL : accept_stack(s, addr, len, flags);
		if (got == -EAGAIN && both)
			got = accept_kernel(s, fd, addr, len, flags);
		if (got != -EAGAIN || sock_nonblock(s))
			break;
		lock_give(&s->rx);
		got = wait_for(s, accept_ready, both ? fd : -1, options_patience(s->options.rcvtimeo_ns));
		lock_take(&s->rx);
		if (got)
			break;
	}
	lock_give(&s->rx);
	sock_unhold(s);
	return got;
}
