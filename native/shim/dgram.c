/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "dgram.h"
#include "dgram_entry.h"
#include "dgram_message.h"
#include "epoll.h"
#include "real.h"
#include "route.h"
#include "shim.h"

void dgram_close(struct sock *s)
{
	dgram_entries_close(s);
	free(s->listener);
	s->listener = NULL;
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
	err = dgram_entries_open(s);
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

int dgram_begin(struct sock *s, int fd)
{
	int err = learn_local(s, fd, 0);

	return err ? err : become(s, true, NULL);
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
	dgram_entries_peer(s);
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
		dgram_entries_claim();
	return s;
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

	if (dgram_readable(s))
		level |= EPOLLIN | EPOLLRDNORM;
	if (shut & 1u << SHUT_RD)
		level |= EPOLLRDHUP | (shut & 1u << SHUT_WR ? EPOLLHUP : 0u);
	if (want & (EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND) && dgram_has_room(s))
		level |= EPOLLOUT | EPOLLWRNORM;
	return level;
}

uint32_t dgram_arrivals(struct sock *s)
{
	uint32_t sum = gz_load(&dgram_of(s)->shut);

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct link *link;
		struct gz_sock *entry = dgram_entry_at(s, i, &link);

		if (entry)
			sum += gz_load_acquire(&entry->worker.out_head) + 1;
	}
	return sum;
}
