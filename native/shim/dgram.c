/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "attach.h"
#include "dgram.h"
#include "epoll.h"
#include "iov.h"
#include "listen.h"
#include "real.h"
#include "route.h"
#include "shim.h"
#include "wait.h"

#define OPEN_PATIENCE_NS 1000000000ull
#define STEAL_NS 10000000ull /* a process that holds the write lock this long has died in it */

struct dgram {
	struct listener entries; /* entry[] and both; first, s->listener points to it */
	struct endpoint peer;    /* port 0 = not connected; both locks to change */
	_Atomic uint32_t shut;   /* 1 << SHUT_RD | 1 << SHUT_WR */
	uint32_t turn;           /* where the next read looks first; rx */
	uint32_t tx_slot;        /* the worker that sends; tx */
	struct sock *next;
};

static struct sock *all; /* shim.lock */

static struct dgram *dgram_of(struct sock *s)
{
	return (struct dgram *)s->listener;
}

/* The entry at worker i, NULL if there is none or it failed. */
static struct gz_sock *entry_at(struct sock *s, uint32_t i, struct link **link)
{
	struct listen_entry *e = &s->listener->entry[i];

	*link = __atomic_load_n(&e->link, __ATOMIC_ACQUIRE);
	if (!*link || !(*link)->channel || gz_load(&(*link)->dead))
		return NULL;
	struct gz_sock *entry = link_sock(*link, e->n);
	/* Pairs with the worker's release: the blocks are named. */
	uint32_t flags = gz_load_acquire(&entry->worker.flags);
	return (flags & (GZ_WORKER_CONNECTED | GZ_WORKER_DEAD)) == GZ_WORKER_CONNECTED ? entry : NULL;
}

/* ------------------------------------------------------------------ entries */

static int post_bind(struct sock *s, struct link *link, uint32_t n)
{
	struct dgram *d = dgram_of(s);
	struct gz_request request = {
		.op = GZ_REQUEST_BIND,
		.sock = n,
		.port = s->local.port,
		.peer_port = d->peer.port,
		.family = AF_INET,
		.type = SOCK_DGRAM,
	};

	memcpy(request.addr, s->local.addr, sizeof(request.addr));
	memcpy(request.peer, d->peer.addr, sizeof(request.peer));
	return link_post(link, &request);
}

/* shim.lock held. */
static void open_entry(struct sock *s, struct link *link)
{
	struct listen_entry *e = &s->listener->entry[link->slot];
	uint32_t n;

	if (shim.role[link->slot] == GZ_ROLE_SEND || !link->channel)
		return;
	n = link_take_number(link, s);
	if (!n)
		return;
	if (post_bind(s, link, n)) {
		link_let_go(link, n);
		return;
	}
	e->n = n;
	__atomic_store_n(&e->link, link, __ATOMIC_RELEASE);
}

/* Waits until the workers have answered. 0, or an error of one of them; -ENETDOWN: there is none. */
static int await_open(struct sock *s)
{
	uint64_t until = now_ns() + OPEN_PATIENCE_NS;
	int err = -ENETDOWN;

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct listen_entry *e = &s->listener->entry[i];

		for (uint32_t turns = 1; e->link && !gz_load(&e->link->dead); turns++) {
			struct gz_end *worker = &link_sock(e->link, e->n)->worker;
			uint32_t flags = gz_load_acquire(&worker->flags);

			if (flags & GZ_WORKER_DEAD)
				return -(int)gz_load(&worker->error);
			if (flags & GZ_WORKER_CONNECTED) {
				err = 0;
				break;
			}
			sched_yield();
			if (turns % 64)
				continue;
			attach_check();
			if (now_ns() > until)
				return -ETIMEDOUT;
		}
	}
	return err;
}

static void close_entry(struct listen_entry *e)
{
	struct link *link = e->link;

	__atomic_store_n(&e->link, NULL, __ATOMIC_RELEASE);
	if (link)
		link_let_go(link, e->n);
}

static void unlist(struct sock *s)
{
	struct sock **p = &all;

	lock_take(&shim.lock);
	while (*p && *p != s)
		p = &dgram_of(*p)->next;
	if (*p)
		*p = dgram_of(s)->next;
	for (uint32_t i = 0; i < shim.workers; i++)
		close_entry(&s->listener->entry[i]);
	lock_give(&shim.lock);
}

void dgram_close(struct sock *s)
{
	unlist(s);
	free(s->listener);
	s->listener = NULL;
}

void dgram_lost(struct link *link)
{
	for (struct sock *s = all; s; s = dgram_of(s)->next)
		if (s->listener->entry[link->slot].link == link)
			close_entry(&s->listener->entry[link->slot]);
}

void dgram_restore(struct link *link)
{
	for (struct sock *s = all; s; s = dgram_of(s)->next) {
		struct listen_entry *e = &s->listener->entry[link->slot];

		if (e->link)
			continue;
		open_entry(s, link);
		if (e->link)
			epoll_claim(s, link, e->n);
	}
}

static void claim_links(void)
{
	WORKER_EACH(link, i)
	{
		if (__builtin_expect(!link->channel, 0))
			(void)attach_claim(link);
	}
}

/* FRESH becomes DGRAM; s->local is set. Both locks held. */
static int become(struct sock *s, bool both, const struct endpoint *peer)
{
	struct dgram *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	d->entries.both = both;
	if (peer)
		d->peer = *peer;
	s->listener = &d->entries;
	d->tx_slot = gz_add(&shim.turn, 1) % shim.workers;
	claim_links();
	lock_take(&shim.lock);
	WORKER_EACH(link, i)
	{
		open_entry(s, link);
	}
	d->next = all;
	all = s;
	lock_give(&shim.lock);
	err = await_open(s);
	if (err) {
		dgram_close(s);
		return err;
	}
	gz_store_release(&s->kind, KIND_DGRAM);
	epoll_became(s, both);
	return 0;
}

/* What the kernel calls it; binds it to where the caller says if it has no port yet. 0 or -errno. */
static int learn_local(struct sock *s, int fd, uint32_t addr_be)
{
	struct sockaddr_in in;
	socklen_t len = sizeof(in);
	int on = 1;

	if (REAL(getsockname)(fd, (struct sockaddr *)&in, &len))
		return -errno;
	if (!in.sin_port) {
		in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = addr_be };
		if (addr_be)
			(void)REAL(setsockopt)(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on));
		if (REAL(bind)(fd, (struct sockaddr *)&in, sizeof(in)))
			return -errno;
		len = sizeof(in);
		if (REAL(getsockname)(fd, (struct sockaddr *)&in, &len))
			return -errno;
	}
	s->bound = true;
	return endpoint_from((struct sockaddr *)&in, len, &s->local) ? 0 : -EINVAL;
}

int dgram_bound(struct sock *s, int fd)
{
	bool any = !endpoint_ip4_be(&s->local);
	int err;

	if (!any && !route_is_stack(&s->local)) {
		sock_to_kernel(s, fd, s->local.addr[12] == 127 ? GZ_KERNEL_LOOPBACK : GZ_KERNEL_ADDRESS);
		return 1;
	}
	lock_take(&s->rx);
	lock_take(&s->tx);
	err = sock_kind(s) == KIND_FRESH ? become(s, any, NULL) : -EINVAL;
	lock_give(&s->tx);
	lock_give(&s->rx);
	if (err && any) {
		sock_to_kernel(s, fd, GZ_KERNEL_NO_RESOURCE); /* the kernel alone: some peers are better than none */
		return 1;
	}
	return err;
}

/* A DGRAM gets another peer, or none. Both locks held. */
static int set_peer(struct sock *s, const struct endpoint *peer)
{
	dgram_of(s)->peer = *peer;
	claim_links();
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct link *link;

		if (entry_at(s, i, &link))
			(void)post_bind(s, link, s->listener->entry[i].n);
	}
	return 0;
}

int dgram_connect(struct sock *s, int fd, const struct sockaddr *sa, socklen_t len)
{
	enum gz_kernel_reason why = GZ_KERNEL_ADDRESS;
	struct endpoint to = { 0 };
	bool fresh, stack, both;
	int err = 0;

	lock_take(&s->rx);
	lock_take(&s->tx);
	fresh = sock_kind(s) == KIND_FRESH;
	both = !fresh && s->listener->both;
	if (len >= sizeof(sa->sa_family) && sa && sa->sa_family == AF_UNSPEC) {
		err = fresh ? 1 : set_peer(s, &to);
		if (both && REAL(connect)(fd, sa, len))
			err = -errno;
		goto out;
	}
	err = 1;
	if (!endpoint_from(sa, len, &to) || sa->sa_family != AF_INET) {
		err = fresh || both ? 1 : -EAFNOSUPPORT;
		goto out;
	}
	stack = to.port && route_connect(fresh ? NULL : &s->local, &to, &why) == ROUTE_STACK;
	if (!stack) {
		if (!fresh && !both)
			err = -ENETUNREACH;
		lock_give(&s->tx);
		lock_give(&s->rx);
		if (err == 1)
			sock_to_kernel(s, fd, why);
		return err;
	}
	if (fresh) {
		err = learn_local(s, fd, shim.group->host_addr_be);
		if (!err)
			err = become(s, !endpoint_ip4_be(&s->local), &to);
		both = !err && s->listener->both;
	} else {
		err = set_peer(s, &to);
	}
	/* So that it hears this peer only, there as well. */
	if (!err && both && REAL(connect)(fd, sa, len))
		err = -errno;
out:
	lock_give(&s->tx);
	lock_give(&s->rx);
	return err;
}

struct sock *dgram_enter(int fd, bool fresh)
{
	struct sock *s = fd_sock(fd);

	if (!s || !s->datagram)
		return NULL;
	s = sock_enter(fd, false);
	if (!s)
		return NULL;
	if (!s->datagram || (sock_kind(s) != KIND_DGRAM && !fresh)) {
		lock_give(&s->rx);
		return NULL;
	}
	sock_get(s);
	lock_give(&s->rx);
	if (__builtin_expect(s->born != gz_load(&shim.forks), 0))
		claim_links();
	return s;
}

/* ------------------------------------------------------------------ receiving */

/* The header of the next datagram of an entry. Bytes that wait there, 0 = none. */
static uint32_t peek(struct gz_sock *entry, struct link *link, struct gz_datagram *header, uint8_t **mem, uint32_t *tail)
{
	uint32_t block = gz_load(&entry->worker.out_block), size = GZ_BLOCK_SIZE(block), waiting;

	*tail = gz_load(&entry->app.in_tail);
	waiting = gz_load_acquire(&entry->worker.out_head) - *tail; /* pairs with the worker's: the bytes are written */
	*mem = link_block(link, block);
	if (!*mem || waiting < sizeof(*header) || waiting > size)
		return 0;
	gz_fifo_copy_out(*mem, size, gz_load(&entry->worker.out_base), *tail, header, sizeof(*header));
	return header->len <= GZ_DATAGRAM_MAX && GZ_DATAGRAM_SPACE(header->len) <= waiting ? waiting : 0;
}

static void fill_name(struct msghdr *msg, const struct gz_datagram *header)
{
	struct endpoint from = { .port = header->port };

	memcpy(from.addr, header->addr, sizeof(from.addr));
	if (msg->msg_name)
		endpoint_to(&from, AF_INET, msg->msg_name, &msg->msg_namelen);
	msg->msg_controllen = 0;
}

/* One datagram of the stack, -EAGAIN if there is none. rx held. */
static ssize_t take(struct sock *s, struct msghdr *msg, size_t room, int flags)
{
	struct dgram *d = dgram_of(s);

	for (uint32_t i = 0; i < shim.workers; i++) {
		uint32_t slot = (d->turn + i) % shim.workers, tail, len;
		struct gz_datagram header;
		struct gz_sock *entry;
		struct link *link;
		struct iov to;
		uint8_t *mem;

		entry = entry_at(s, slot, &link);
		if (!entry)
			continue;
		do {
			if (!peek(entry, link, &header, &mem, &tail))
				break;
			len = header.len < room ? header.len : (uint32_t)room;
			(void)iov_begin(&to, msg->msg_iov, (int)msg->msg_iovlen);
			iov_copy_out(&to, mem, GZ_BLOCK_SIZE(gz_load(&entry->worker.out_block)),
			             gz_load(&entry->worker.out_base), tail + (uint32_t)sizeof(header), len);
			fill_name(msg, &header);
			msg->msg_flags = header.len > len ? MSG_TRUNC : 0;
			if (flags & MSG_PEEK)
				return flags & MSG_TRUNC ? header.len : len;
			/* Another process may read from it, too: then what we copied is not ours. */
			if (gz_cas(&entry->app.in_tail, &tail, tail + GZ_DATAGRAM_SPACE(header.len))) {
				d->turn = slot + 1;
				return flags & MSG_TRUNC ? header.len : len;
			}
			if (msg->msg_name)
				msg->msg_namelen = sizeof(struct sockaddr_storage);
		} while (true);
	}
	return -EAGAIN;
}

int dgram_next(struct sock *s)
{
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct gz_datagram header;
		struct gz_sock *entry;
		struct link *link;
		uint32_t tail;
		uint8_t *mem;

		entry = entry_at(s, (dgram_of(s)->turn + i) % shim.workers, &link);
		if (entry && peek(entry, link, &header, &mem, &tail))
			return (int)header.len;
	}
	return -1;
}

static bool readable(struct sock *s)
{
	return gz_load(&dgram_of(s)->shut) & 1u << SHUT_RD || dgram_next(s) >= 0;
}

ssize_t dgram_recv(struct sock *s, int fd, struct msghdr *msg, int flags)
{
	bool both = s->listener->both;
	socklen_t namelen = msg->msg_namelen;
	struct iov to;
	ssize_t room = iov_begin(&to, msg->msg_iov, (int)msg->msg_iovlen), got = room;

	if (flags & (MSG_OOB | MSG_ERRQUEUE))
		got = flags & MSG_OOB ? -EOPNOTSUPP : -EAGAIN;
	lock_take(&s->rx);
	while (got >= 0 || got == -EAGAIN) {
		if (room < 0 || flags & (MSG_OOB | MSG_ERRQUEUE))
			break;
		msg->msg_namelen = namelen;
		got = take(s, msg, (size_t)room, flags);
		if (got == -EAGAIN && both && fd_sock(fd) == s) {
			got = REAL(recvmsg)(fd, msg, flags | MSG_DONTWAIT);
			got = got < 0 ? -errno : got;
		}
		if (got == -EAGAIN && gz_load(&dgram_of(s)->shut) & 1u << SHUT_RD)
			got = 0;
		if (got != -EAGAIN || flags & MSG_DONTWAIT || gz_load(&s->nonblock))
			break;
		lock_give(&s->rx);
		int err = wait_for(s, readable, both ? fd : -1, s->options.rcvtimeo_ns ? s->options.rcvtimeo_ns : -1);
		lock_take(&s->rx);
		if (err) {
			got = err;
			break;
		}
	}
	lock_give(&s->rx);
	sock_put(s);
	return got;
}

/* ------------------------------------------------------------------ sending */

/* The worker that sends: always the same while it lives, so that datagrams keep their order. */
static struct gz_sock *sender(struct sock *s, struct link **link)
{
	struct dgram *d = dgram_of(s);

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct gz_sock *entry = entry_at(s, (d->tx_slot + i) % shim.workers, link);

		if (entry)
			return entry;
	}
	return NULL;
}

/* Between processes that share the FIFO after a fork. */
static void write_lock(struct gz_sock *entry)
{
	uint64_t until = now_ns() + STEAL_NS;
	uint32_t zero = 0;

	while (!gz_cas(&entry->app.aux[8], &zero, 1)) {
		zero = 0;
		sched_yield();
		if (now_ns() > until)
			return;
	}
}

static bool has_room(struct sock *s)
{
	struct link *link;
	struct gz_sock *entry = sender(s, &link);
	uint32_t size, used;

	if (!entry || gz_load(&dgram_of(s)->shut) & 1u << SHUT_WR)
		return true;
	size = GZ_BLOCK_SIZE(gz_load(&entry->worker.in_block));
	used = gz_load(&entry->app.out_head) - gz_load_acquire(&entry->worker.in_tail);
	if (used <= size / 2)
		return true;
	gz_or(&entry->app.flags, GZ_APP_WANT_SPACE);
	gz_fence(); /* pairs with the worker's release of in_tail and its look at the flag */
	return gz_load(&entry->app.out_head) - gz_load_acquire(&entry->worker.in_tail) <= size / 2;
}

/* Puts one datagram into the FIFO. 0, -EAGAIN or -errno. tx held. */
static int put(struct sock *s, const struct endpoint *to, struct iov *from, uint32_t len)
{
	struct link *link;
	struct gz_sock *entry = sender(s, &link);
	bool shared = s->born != gz_load(&shim.forks);
	struct gz_datagram header = { .len = len, .port = to->port };
	int err = -EAGAIN;

	if (!entry)
		return -ENETDOWN;
	uint32_t block = gz_load(&entry->worker.in_block), size = GZ_BLOCK_SIZE(block), room, base, head;
	uint8_t *mem = link_block(link, block);
	if (!mem)
		return -EPROTO;
	if (shared)
		write_lock(entry);
	room = gz_fifo_writable(&entry->app, &entry->worker, size);
	if (room == GZ_FIFO_BROKEN)
		err = -EPROTO;
	else if (room >= GZ_DATAGRAM_SPACE(len)) {
		memcpy(header.addr, to->addr, sizeof(header.addr));
		gz_and(&entry->app.flags, ~GZ_APP_WANT_SPACE);
		base = gz_fifo_rebase(&entry->app, &entry->worker);
		head = gz_load(&entry->app.out_head);
		gz_fifo_copy_in(mem, size, base, head, &header, sizeof(header));
		iov_copy_in(from, mem, size, base, head + (uint32_t)sizeof(header), len);
		gz_fifo_publish(&entry->app, GZ_DATAGRAM_SPACE(len));
		err = 0;
	}
	if (shared)
		gz_store_release(&entry->app.aux[8], 0);
	if (!err)
		link_ring(link, s->listener->entry[link->slot].n);
	return err;
}

/* Where this message goes. 0 = by the stack, 1 = by the kernel, or -errno. Both locks held; a FRESH socket may become DGRAM. */
static int destination(struct sock *s, int fd, const struct msghdr *msg, struct endpoint *to)
{
	enum gz_kernel_reason why;
	bool fresh = sock_kind(s) == KIND_FRESH;

	if (!msg->msg_name) {
		if (fresh)
			return 1;
		*to = dgram_of(s)->peer;
		return to->port ? 0 : -EDESTADDRREQ;
	}
	if (!endpoint_from(msg->msg_name, msg->msg_namelen, to) ||
	    ((const struct sockaddr *)msg->msg_name)->sa_family != AF_INET)
		return fresh || s->listener->both ? 1 : -EINVAL;
	if (!to->port)
		return -EINVAL;
	if (route_connect(fresh ? NULL : &s->local, to, &why) == ROUTE_KERNEL)
		return fresh || s->listener->both ? 1 : -ENETUNREACH;
	if (!fresh)
		return 0;
	return learn_local(s, fd, 0) || become(s, true, NULL) ? 1 : 0;
}

ssize_t dgram_send(struct sock *s, int fd, const struct msghdr *msg, int flags)
{
	struct endpoint to;
	struct iov from;
	ssize_t total = iov_begin(&from, msg->msg_iov, (int)msg->msg_iovlen);
	int err = total < 0 ? (int)total : 0;

	lock_take(&s->rx);
	lock_take(&s->tx);
	if (!err)
		err = destination(s, fd, msg, &to);
	lock_give(&s->rx);
	if (!err && gz_load(&dgram_of(s)->shut) & 1u << SHUT_WR)
		err = -EPIPE;
	if (!err && flags & MSG_OOB)
		err = -EOPNOTSUPP;
	if (!err && total > (ssize_t)GZ_DATAGRAM_MAX)
		err = -EMSGSIZE;
	while (!err) {
		err = put(s, &to, &from, (uint32_t)total);
		if (err != -EAGAIN || flags & MSG_DONTWAIT || gz_load(&s->nonblock))
			break;
		lock_give(&s->tx);
		err = wait_for(s, has_room, -1, s->options.sndtimeo_ns ? s->options.sndtimeo_ns : -1);
		lock_take(&s->tx);
	}
	if (err == -EAGAIN && sock_kind(s) == KIND_DGRAM) {
		gz_add(&s->nospace, 1);
		(void)has_room(s);
	}
	lock_give(&s->tx);
	sock_put(s);
	if (err == 1) {
		total = REAL(sendmsg)(fd, msg, flags);
		return total < 0 ? -errno : total;
	}
	return err ? err : total;
}

/* ------------------------------------------------------------------ state */

int dgram_name(struct sock *s, bool peer, struct sockaddr *sa, socklen_t *len)
{
	struct dgram *d = dgram_of(s);
	struct endpoint ep = peer ? d->peer : s->local;

	if (!sa || !len)
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	if (peer && !d->peer.port)
		return -ENOTCONN;
	if (!peer && !d->peer.port)
		return 1;
	if (!peer)
		memcpy(ep.addr + 12, &shim.group->host_addr_be, 4);
	endpoint_to(&ep, AF_INET, sa, len);
	return 0;
}

int dgram_shutdown(struct sock *s, int how)
{
	if (how < SHUT_RD || how > SHUT_RDWR)
		return -EINVAL;
	if (!dgram_of(s)->peer.port)
		return -ENOTCONN;
	gz_or(&dgram_of(s)->shut, how == SHUT_RDWR ? 1u << SHUT_RD | 1u << SHUT_WR : 1u << how);
	epoll_activate(s);
	return 0;
}

uint32_t dgram_level(struct sock *s, uint32_t want)
{
	uint32_t level = 0, shut = gz_load(&dgram_of(s)->shut);

	if (readable(s))
		level |= EPOLLIN | EPOLLRDNORM;
	if (shut & 1u << SHUT_RD)
		level |= EPOLLRDHUP | (shut & 1u << SHUT_WR ? EPOLLHUP : 0u);
	if (want & (EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND) && has_room(s))
		level |= EPOLLOUT | EPOLLWRNORM;
	return level;
}

uint32_t dgram_arrivals(struct sock *s)
{
	uint32_t sum = gz_load(&dgram_of(s)->shut);

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct link *link;
		struct gz_sock *entry = entry_at(s, i, &link);

		if (entry)
			sum += gz_load_acquire(&entry->worker.out_head) + 1;
	}
	return sum;
}
