/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "worker/attach.h"
#include "wait/epoll.h"
#include "core/eventq.h"
#include "worker/program.h"
#include "stream/listen.h"
#include "samehost/pair.h"
#include "core/real.h"
#include "core/sock.h"
#include "wait/wait.h"

#define OPEN_PATIENCE_NS 1000000000ull

static bool takes_incoming(uint32_t index)
{
	return shim.role[index] != GZ_ROLE_SEND;
}

/* The worker's accept queue, once it has opened the listener. */
static struct gz_accept_queue *entry_queue(struct listen_entry *e, struct attachment *a)
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
	queue = (struct gz_accept_queue *)attachment_block(a, block);
	if (!queue)
		return NULL;
	slots = queue->mask + 1;
	if (!slots || slots & (slots - 1) || sizeof(*queue) + (uint64_t)slots * 4 > GZ_BLOCK_SIZE(block))
		return NULL;
	e->mask = slots - 1;
	__atomic_store_n(&e->queue, queue, __ATOMIC_RELEASE);
	return queue;
}

static bool queue_empty(struct gz_accept_queue *queue)
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

static void tell_options(struct sock *s, struct attachment *a, uint32_t n)
{
	gz_store(&attachment_sock(a, n)->options.defer_accept_s, (uint32_t)s->options.value[OPTION_DEFER_ACCEPT]);
}

static void option_changed(struct sock *s, enum option option)
{
	if (option != OPTION_DEFER_ACCEPT)
		return;
	shim_lock();
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct listen_entry *e = &s->listener->entry[i];

		if (e->attachment)
			tell_options(s, e->attachment, e->n);
	}
	shim_unlock();
}

/* Asks a worker to listen. shim.lock held. The answer is not waited for. */
static void open_entry(struct sock *s, struct attachment *a)
{
	struct listen_entry *e = &s->listener->entry[a->slot];
	struct gz_request request = {
		.op = GZ_REQUEST_LISTEN,
		.port = s->local.port,
		.arg = (uint32_t)s->listener->backlog,
		.family = s->family,
		.type = SOCK_STREAM,
		.v6only = s->listener->v6only,
	};
	int fd = sock_fd(s);

	if (fd < 0)
		return;
	memcpy(request.addr, s->local.addr, sizeof(request.addr));
	request.sock = attachment_take_number(a, s);
	if (!request.sock)
		return;
	tell_options(s, a, request.sock);
	if (attachment_vouch(a, request.sock, fd) || attachment_post(a, &request))
		return;
	e->n = request.sock;
	e->queue = NULL;
	__atomic_store_n(&e->attachment, a, __ATOMIC_RELEASE);
}

/* Waits until every worker has answered. 0, or the error of one that could not. */
static int await_open(struct sock *s)
{
	uint64_t until = now_ns() + OPEN_PATIENCE_NS;
	int error = 0;

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct listen_entry *e = &s->listener->entry[i];

		for (uint32_t turns = 1; e->attachment && !gz_load(&e->attachment->dead); turns++) {
			struct gz_end *worker = &attachment_sock(e->attachment, e->n)->worker;
			uint32_t flags = gz_load_acquire(&worker->flags);

			if (flags & GZ_WORKER_DEAD)
				error = -(int)gz_load(&worker->error);
			if (flags & (GZ_WORKER_DEAD | GZ_WORKER_LISTENING))
				break;
			sched_yield();
			if (turns % 64)
				continue;
			attach_check();
			if (now_ns() > until) {
				error = -ETIMEDOUT;
				break;
			}
		}
	}
	return error;
}

static void set_kernel_nonblock(int fd)
{
	int flags = REAL(fcntl)(fd, F_GETFL);

	if (flags >= 0)
		REAL(fcntl)(fd, F_SETFL, flags | O_NONBLOCK);
}

static void close_entry(struct sock *s, struct listen_entry *e)
{
	struct attachment *a = e->attachment;

	__atomic_store_n(&e->queue, NULL, __ATOMIC_RELEASE);
	__atomic_store_n(&e->attachment, NULL, __ATOMIC_RELEASE);
	if (!a)
		return;
	epoll_unclaim(s, a, e->n); /* sets that have s must not take the next socket of that number for it */
	attachment_let_go(a, e->n);
}

static void unlist(struct sock *s)
{
	struct sock **p = &shim.listeners;

	while (*p && *p != s)
		p = &(*p)->listener->next;
	if (*p)
		*p = s->listener->next;
	for (uint32_t i = 0; i < shim.workers; i++)
		close_entry(s, &s->listener->entry[i]);
	pair_refuse_waiting(s);
}

/* Asks all workers to listen. 0, or the error of one that could not: then none does. */
static int enlist(struct sock *s)
{
	int err;

	shim_lock();
	WORKER_EACH(a, i)
	{
		if (takes_incoming(i))
			open_entry(s, a);
	}
	s->listener->next = shim.listeners;
	shim.listeners = s;
	shim_unlock();
	err = await_open(s);
	if (!err)
		return 0;
	shim_lock();
	unlist(s);
	shim_unlock();
	return err;
}

struct listener *listen_inherit(struct sock *s, int backlog, bool both, bool shut)
{
	struct listener *listener = calloc(1, sizeof(*listener));

	if (!listener)
		return NULL;
	listener->both = both;
	listener->shut = shut;
	listener->backlog = backlog;
	if (shut)
		return listener;
	listener->next = shim.listeners;
	shim.listeners = s;
	return listener;
}

static int become_listener(struct sock *s, int fd, int backlog, bool both)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	int err;

	if (!listener)
		return -ENOMEM;
	listener->both = both;
	listener->v6only = sock_v6only(s, fd);
	listener->backlog = backlog;
	s->listener = listener;
	s->fd = fd;
	err = enlist(s);
	if (err) {
		s->listener = NULL;
		free(listener);
		return err;
	}
	if (both)
		set_kernel_nonblock(fd); /* accept looks there, too, and must not be held up */
	gz_store_release(&s->kind, KIND_LISTENER);
	shim_explain(GZ_EXPLAINED_LISTENER);
	epoll_became(s, both);
	return 0;
}

/* listen() after a shutdown(): it listens anew. */
static int listen_anew(struct sock *s, int backlog)
{
	int err;

	s->listener->backlog = backlog;
	err = enlist(s);
	if (err)
		return err;
	s->listener->shut = false;
	WORKER_EACH(a, i)
	{
		struct listen_entry *e = &s->listener->entry[i];

		if (e->attachment)
			epoll_claim(s, a, e->n);
	}
	return 0;
}

static int set_backlog(struct sock *s, int backlog)
{
	if (s->listener->shut)
		return listen_anew(s, backlog);
	s->listener->backlog = backlog;
	pair_backlog(s);
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct listen_entry *e = &s->listener->entry[i];
		struct gz_request request = { .op = GZ_REQUEST_BACKLOG, .sock = e->n, .arg = (uint32_t)backlog };

		if (e->attachment && e->attachment->channel)
			(void)attachment_post(e->attachment, &request);
	}
	return 0;
}

int listen_start(struct sock *s, int fd, int backlog)
{
	enum gz_kernel_reason why = GZ_KERNEL_NO_RESOURCE;
	enum route route = ROUTE_KERNEL;
	int err = 0;

	program_claim_all();
	lock_take(&s->rx);
	lock_take(&s->tx);
	if (sock_kind(s) == KIND_STREAM) {
		err = -EINVAL;
		goto out;
	}
	err = REAL(listen)(fd, backlog) ? -errno : 0;
	if (err == -EADDRINUSE && attach_free_ports())
		err = REAL(listen)(fd, backlog) ? -errno : 0;
	if (err)
		goto out;
	if (sock_kind(s) == KIND_LISTENER) {
		err = set_backlog(s, backlog);
		goto out;
	}
	struct sockaddr_storage local;
	socklen_t len = sizeof(local);

	if (REAL(getsockname)(fd, (struct sockaddr *)&local, &len) ||
	    !endpoint_from((struct sockaddr *)&local, len, &s->local))
		goto to_kernel;
	s->bound = true;
	route = route_listen(&s->local, &why);
	if (route == ROUTE_KERNEL)
		goto to_kernel;
	err = become_listener(s, fd, backlog, route == ROUTE_BOTH);
	if (err && route == ROUTE_BOTH) {
		err = 0; /* the kernel alone, then: some clients are better than none */
		why = GZ_KERNEL_NO_RESOURCE;
		goto to_kernel;
	}
out:
	lock_give(&s->tx);
	lock_give(&s->rx);
	return err;

to_kernel:
	lock_give(&s->tx);
	lock_give(&s->rx);
	sock_to_kernel(s, fd, why);
	return 0;
}

bool listen_ready(struct sock *s)
{
	struct listener *listener = s->listener;

	if (listener->shut)
		return true;
	if (pair_waiting(s))
		return true;
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct listen_entry *e = &listener->entry[i];
		struct attachment *a = __atomic_load_n(&e->attachment, __ATOMIC_ACQUIRE);
		struct gz_accept_queue *queue = a ? entry_queue(e, a) : NULL;

		if (queue && !queue_empty(queue))
			return true;
	}
	return false;
}

static uint32_t level_of(struct sock *s, uint32_t want)
{
	(void)want;
	if (s->listener->shut)
		return EPOLLOUT | EPOLLWRNORM | EPOLLHUP; /* as a socket that never listened */
	return listen_ready(s) ? EPOLLIN | EPOLLRDNORM : 0;
}

/* Sum of the accept queues' heads. */
static uint32_t received(struct sock *s)
{
	uint32_t sum = s->listener->shut + pair_accept_count();

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct listen_entry *e = &s->listener->entry[i];
		struct attachment *a = __atomic_load_n(&e->attachment, __ATOMIC_ACQUIRE);
		struct gz_accept_queue *queue = a ? entry_queue(e, a) : NULL;

		if (queue)
			sum += gz_load_acquire(&queue->head) + 1;
	}
	return sum;
}

void listen_interest(struct sock *s, uint32_t queue, bool on)
{
	if (on)
		pair_listen_interest(queue); /* for good: a bell too many does no harm */
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct listen_entry *e = &s->listener->entry[i];
		struct attachment *a = __atomic_load_n(&e->attachment, __ATOMIC_ACQUIRE);

		if (!a || !a->channel)
			continue;
		if (on)
			attachment_interest(a, e->n, queue);
		else
			attachment_no_interest(a, e->n, queue);
	}
}

uint64_t listen_netns(struct sock *s)
{
	if (!s->listener->netns)
		s->listener->netns = pair_netns(sock_fd(s));
	return s->listener->netns;
}

/* A popped connection becomes a socket under `newfd`. `name`: a pair's. */
static int adopt(struct sock *s, struct attachment *a, uint32_t n, const struct gz_name *name, int newfd,
                 struct sockaddr *addr, socklen_t *len, int flags)
{
	struct gz_request request = { .op = GZ_REQUEST_CLAIM, .sock = n };
	struct sock *fresh = sock_adopt(a, n, s->family, flags);
	struct endpoint peer;

	attachment_hold(a, n, fresh);
	if (!a->pair)
		(void)attachment_post(a, &request); /* a worker that died leaves a dead connection, as a reset would */
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
	struct listener *listener = s->listener;
	int local = accept_pair(s, addr, len, flags);

	if (local != -EAGAIN)
		return local;
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct listen_entry *e = &listener->entry[(listener->turn + i) % shim.workers];
		struct attachment *a = __atomic_load_n(&e->attachment, __ATOMIC_ACQUIRE);
		struct gz_accept_queue *queue = a ? entry_queue(e, a) : NULL;
		uint32_t n;
		int fd;

		if (!queue || queue_empty(queue))
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

int listen_accept(struct sock *s, int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int got;

	_Static_assert(SOCK_CLOEXEC == O_CLOEXEC && SOCK_NONBLOCK == O_NONBLOCK, "one flag word serves both");
	program_claim_all();
	sock_hold(s);
	for (;;) {
		bool both = s->listener->both;

		got = s->listener->shut ? -EINVAL : accept_stack(s, addr, len, flags);
		if (got == -EAGAIN && both)
			got = accept_kernel(s, fd, addr, len, flags);
		if (got != -EAGAIN || sock_nonblock(s))
			break;
		lock_give(&s->rx);
		got = wait_for(s, listen_ready, both ? fd : -1, options_patience(s->options.rcvtimeo_ns));
		lock_take(&s->rx);
		if (got)
			break;
	}
	lock_give(&s->rx);
	sock_unhold(s);
	return got;
}

void listen_shutdown(struct sock *s)
{
	s->listener->shut = true;
	shim_lock();
	unlist(s);
	shim_unlock();
	epoll_activate(s);
	eventq_wake_all();
}

static void close_all(struct sock *s)
{
	shim_lock();
	unlist(s);
	shim_unlock();
	attach_await_all(); /* they have our kernel socket open: until they close it, nobody can bind its port */
	free(s->listener);
	s->listener = NULL;
}

void listen_lost(struct attachment *a)
{
	for (struct sock *s = shim.listeners; s; s = s->listener->next)
		if (s->listener->entry[a->slot].attachment == a)
			close_entry(s, &s->listener->entry[a->slot]);
}

void listen_restore(struct attachment *a)
{
	if (!takes_incoming(a->slot))
		return;
	for (struct sock *s = shim.listeners; s; s = s->listener->next) {
		struct listen_entry *e = &s->listener->entry[a->slot];

		if (e->attachment)
			continue;
		open_entry(s, a);
		if (e->attachment)
			epoll_claim(s, a, e->n);
	}
}

const struct sock_ops listen_ops = {
	.level = level_of,
	.received = received,
	.interest = listen_interest,
	.option_changed = option_changed,
	.close = close_all,
};
