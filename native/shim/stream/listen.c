/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "stream/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include <gazelle/stamp.h>

#include "core/eventq.h"
#include "core/real.h"
#include "samehost/accept.h"
#include "stream/accept.h"
#include "wait/epoll_set.h"
#include "worker/attach.h"
#include "worker/listener.h"
#include "worker/requests.h"

static void write_options(struct sock *s, struct gz_sock *entry)
{
	gz_store(&entry->options.defer_accept_s, (uint32_t)s->options.value[OPTION_DEFER_ACCEPT]);
}

static void open_entry(struct sock *s, struct attachment *a)
{
	struct gz_request request = {
		.op = GZ_REQUEST_LISTEN,
		.arg = (uint32_t)listener_of(s)->backlog,
		.type = SOCK_STREAM,
	};
	int fd = sock_fd(s);

	if (fd < 0 || shim.role[a->slot] == GZ_ROLE_SEND) /* it takes no incoming connections */
		return;
	entries_describe(s, &request);
	(void)entries_ask(s, a, fd, &request);
}

static const struct entries_ops ops = {
	.open_flag = GZ_WORKER_LISTENING,
	.open = open_entry,
	.write_options = write_options,
};

static void option_changed(struct sock *s, enum option option)
{
	if (option == OPTION_DEFER_ACCEPT)
		entries_write_options(s);
}

static void close_entries(struct sock *s)
{
	shim_lock();
	entries_close(s);
	pair_refuse_waiting(s);
	shim_unlock();
}

/* Asks all workers to listen. 0, or the error of one that could not: then none does. */
static int open_all(struct sock *s)
{
	int err = entries_open(s);

	if (err >= 0)
		return 0;
	close_entries(s);
	return err;
}

struct entries *listen_inherit(struct sock *s, int backlog, bool both, bool shut)
{
	struct listener *listener = calloc(1, sizeof(*listener));

	if (!listener)
		return NULL;
	listener->entries.ops = &ops;
	listener->entries.both = both;
	listener->shut = shut;
	listener->backlog = backlog;
	s->entries = &listener->entries;
	if (!shut)
		entries_enter(s);
	return s->entries;
}

static void set_kernel_nonblock(int fd)
{
	int flags = REAL(fcntl)(fd, F_GETFL);

	if (flags >= 0)
		REAL(fcntl)(fd, F_SETFL, flags | O_NONBLOCK);
}

static int become_listener(struct sock *s, int fd, int backlog, bool both)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	int err;

	if (!listener)
		return -ENOMEM;
	listener->entries = (struct entries){ .ops = &ops, .both = both, .v6only = sock_v6only(s, fd) };
	listener->backlog = backlog;
	s->entries = &listener->entries;
	s->fd = fd;
	err = open_all(s);
	if (err) {
		s->entries = NULL;
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

	listener_of(s)->backlog = backlog;
	err = open_all(s);
	if (err)
		return err;
	listener_of(s)->shut = false;
	entries_claim(s);
	return 0;
}

static int set_backlog(struct sock *s, int backlog)
{
	if (listener_of(s)->shut)
		return listen_anew(s, backlog);
	listener_of(s)->backlog = backlog;
	pair_backlog(s);
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct entry *e = &s->entries->entry[i];
		struct gz_request request = { .op = GZ_REQUEST_BACKLOG, .sock = e->n, .arg = (uint32_t)backlog };

		if (e->attachment && e->attachment->channel)
			(void)request_post(e->attachment, &request);
	}
	return 0;
}

int listen_start(struct sock *s, int fd, int backlog)
{
	enum gz_kernel_reason why = GZ_KERNEL_NO_RESOURCE;
	enum route route = ROUTE_KERNEL;
	int err = 0;

	attachment_claim_all();
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

static uint32_t level_of(struct sock *s, uint32_t want)
{
	(void)want;
	if (listener_of(s)->shut)
		return EPOLLOUT | EPOLLWRNORM | EPOLLHUP; /* as a socket that never listened */
	return accept_ready(s) ? EPOLLIN | EPOLLRDNORM : 0;
}

/* Sum of the accept queues' heads. */
static uint32_t received(struct sock *s)
{
	uint32_t sum = listener_of(s)->shut + pair_accept_count();

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct entry *e = &s->entries->entry[i];
		struct attachment *a = __atomic_load_n(&e->attachment, __ATOMIC_ACQUIRE);
		struct gz_accept_queue *queue = a ? accept_queue(e, a) : NULL;

		if (queue)
			sum += gz_load_acquire(&queue->head) + 1;
	}
	return sum;
}

/* The oldest of the accept queues' stamps. */
static uint32_t since(struct sock *s)
{
	uint32_t stamp = 0;
	bool any = pair_waiting_since(s, &stamp);

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct entry *e = &s->entries->entry[i];
		struct attachment *a = __atomic_load_n(&e->attachment, __ATOMIC_ACQUIRE);
		struct gz_accept_queue *queue = a ? accept_queue(e, a) : NULL;
		uint32_t at;

		if (!queue || accept_queue_is_empty(queue))
			continue;
		at = gz_load(&attachment_sock(a, e->n)->worker.aux[GZ_AUX_READY]);
		if (!any || gz_stamp_before(at, stamp))
			stamp = at;
		any = true;
	}
	return any ? stamp : gz_stamp();
}

static void interest(struct sock *s, uint32_t queue, bool on)
{
	if (on)
		pair_listen_interest(queue); /* for good: a bell too many does no harm */
	entries_interest(s, queue, on);
}

void listen_shutdown(struct sock *s)
{
	listener_of(s)->shut = true;
	close_entries(s);
	epoll_activate(s);
	eventq_wake_all();
}

static void close_all(struct sock *s)
{
	close_entries(s);
	request_await_all(); /* they have our kernel socket open: until they close it, nobody can bind its port */
	free(s->entries);
	s->entries = NULL;
}

const struct sock_ops listen_ops = {
	.level = level_of,
	.received = received,
	.since = since,
	.interest = interest,
	.option_changed = option_changed,
	.close = close_all,
};
