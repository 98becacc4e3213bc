/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <gazelle/address.h>

#include "udp/dgram.h"
#include "udp/dgram_aside.h"
#include "udp/dgram_entry.h"
#include "udp/dgram_options.h"
#include "wait/epoll_set.h"
#include "worker/program.h"
#include "core/real.h"
#include "core/route.h"
#include "core/shim.h"

void dgram_close(struct sock *s)
{
	dgram_entries_close(s);
	free(s->entries);
	s->entries = NULL;
}

/* FRESH becomes DGRAM; s->local is set. Both locks held. */
static int become(struct sock *s, int fd, bool both, const struct endpoint *peer, uint8_t own)
{
	struct dgram *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	dgram_entries_begin(s, d, both, sock_v6only(s, fd));
	if (peer)
		d->peer = *peer;
	d->peer_own = own;
	s->fd = fd;
	dgram_options_load(s, fd);
	d->tx_slot = gz_add(&shim.turn, 1) % shim.workers;
	err = dgram_entries_open(s);
	if (err) {
		dgram_close(s);
		return err;
	}
	gz_store_release(&s->kind, KIND_DGRAM);
	shim_explain(GZ_EXPLAINED_DATAGRAM);
	epoll_became(s, both);
	return 0;
}

/* What the kernel calls it; binds it to a port of any address if it has none yet. 0 or -errno. */
static int learn_local(struct sock *s, int fd)
{
	struct sockaddr_storage sa = { .ss_family = s->family };
	socklen_t len = sizeof(sa);

	if (REAL(getsockname)(fd, (struct sockaddr *)&sa, &len))
		return -errno;
	if (!endpoint_from((struct sockaddr *)&sa, len, &s->local))
		return -EINVAL;
	if (!s->local.port) {
		sa = (struct sockaddr_storage){ .ss_family = s->family };
		if (REAL(bind)(fd, (struct sockaddr *)&sa, len))
			return -errno;
		len = sizeof(sa);
		if (REAL(getsockname)(fd, (struct sockaddr *)&sa, &len))
			return -errno;
	}
	return endpoint_from((struct sockaddr *)&sa, len, &s->local) ? 0 : -EINVAL;
}

int dgram_begin(struct sock *s, int fd)
{
	int err = learn_local(s, fd);

	return err ? err : become(s, fd, true, NULL, 0);
}

int dgram_bound(struct sock *s, int fd)
{
	bool both = gz_addr_is_any(s->local.addr) || (route_is_shared() && route_is_stack(&s->local));
	int err;

	if (!both && !route_is_stack(&s->local)) {
		sock_to_kernel(s, fd, gz_addr_is_loopback(s->local.addr) ? GZ_KERNEL_LOOPBACK : GZ_KERNEL_ADDRESS);
		return 1;
	}
	lock_take(&s->rx);
	lock_take(&s->tx);
	err = sock_kind(s) == KIND_FRESH ? become(s, fd, both, NULL, 0) : -EINVAL;
	lock_give(&s->tx);
	lock_give(&s->rx);
	if (err && both) {
		sock_to_kernel(s, fd, GZ_KERNEL_NO_RESOURCE); /* the kernel alone: some peers are better than none */
		return 1;
	}
	return err;
}

/* False: an address of the family that the socket's own address, or its being v6only, keeps it from. */
static bool speaks(struct sock *s, const struct endpoint *to)
{
	if (gz_addr_is_any(s->local.addr))
		return gz_addr_serves(s->local.addr, s->entries->v6only, to->addr);
	return gz_addr_is4(s->local.addr) == gz_addr_is4(to->addr);
}

bool dgram_routed(struct sock *s, int fd, const struct endpoint *to, uint8_t *own, enum gz_kernel_reason *why)
{
	struct dgram *d = sock_kind(s) == KIND_FRESH ? NULL : dgram_of(s);

	*own = 0;
	*why = GZ_KERNEL_ADDRESS;
	if (d ? !speaks(s, to) : gz_addr_is4(to->addr) && sock_v6only(s, fd))
		return false;
	/* Its own address: sockets of this host, which the workers know and the kernel does not. */
	if (route_is_stack(to))
		return !route_is_shared();
	if (!d)
		return route_connect(NULL, to, own, why) == ROUTE_STACK;
	if (memcmp(d->asked.addr, to->addr, sizeof(to->addr)) || d->asked.scope != to->scope || !d->asked.port) {
		d->route = route_connect(&s->local, to, &d->own, why);
		d->asked = *to;
	}
	*own = d->own;
	return d->route == ROUTE_STACK;
}

bool dgram_address(const struct sock *s, const struct sockaddr *sa, socklen_t len, struct endpoint *out)
{
	/* A socket of IPv6 may be told IPv4 addresses as such, too. */
	return endpoint_from(sa, len, out) && (sa->sa_family == s->family || sa->sa_family == AF_INET);
}

/* A DGRAM gets another peer, or none. Both locks held. */
static int set_peer(struct sock *s, int fd, const struct endpoint *peer, uint8_t own)
{
	int err = s->entries->both ? dgram_quieten_kernel(s, fd, peer->port != 0) : 0;

	if (err)
		return err;
	dgram_of(s)->peer = *peer;
	dgram_of(s)->peer_own = own;
	dgram_entries_peer(s);
	return 0;
}

/* connect() to an address. As dgram_connect. Both locks held. */
static int connect_to(struct sock *s, int fd, const struct endpoint *to, enum gz_kernel_reason *why)
{
	bool fresh = sock_kind(s) == KIND_FRESH, both = !fresh && s->entries->both;
	uint8_t own;
	int err;

	if (!to->port || !dgram_routed(s, fd, to, &own, why))
		return fresh || both ? 1 : -ENETUNREACH;
	if (!fresh)
		return set_peer(s, fd, to, own);
	err = learn_local(s, fd);
	if (!err)
		err = become(s, fd, gz_addr_is_any(s->local.addr) || route_is_shared(), to, own);
	if (err == -EADDRINUSE || err == -EADDRNOTAVAIL) {
		*why = GZ_KERNEL_NO_RESOURCE; /* the port is ours in the kernel, which may be another namespace's */
		return 1;
	}
	if (!err && s->entries->both)
		err = dgram_quieten_kernel(s, fd, true);
	return err;
}

int dgram_connect(struct sock *s, int fd, const struct sockaddr *sa, socklen_t len)
{
	enum gz_kernel_reason why = GZ_KERNEL_ADDRESS;
	struct endpoint to = { 0 };
	bool fresh, broadcast;
	int err;

	lock_take(&s->rx);
	lock_take(&s->tx);
	fresh = sock_kind(s) == KIND_FRESH;
	if (len < sizeof(sa->sa_family) || !sa)
		err = fresh ? 1 : -EINVAL;
	else if (sa->sa_family == AF_UNSPEC)
		err = fresh ? 1 : set_peer(s, fd, &to, 0);
	else if (!dgram_address(s, sa, len, &to))
		err = fresh ? 1 : sa->sa_family == AF_INET || sa->sa_family == s->family ? -EINVAL : -EAFNOSUPPORT;
	else {
		broadcast = !fresh && dgram_of(s)->options.broadcast;
		err = !fresh && !broadcast && route_is_broadcast(&to) ? -EACCES : connect_to(s, fd, &to, &why);
		if (err == 1) {
			lock_give(&s->tx);
			lock_give(&s->rx);
			sock_to_kernel(s, fd, why);
			return 1;
		}
	}
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
	sock_hold(s);
	lock_give(&s->rx);
	if (__builtin_expect(s->born != gz_load(&shim.forks), 0))
		attachment_claim_all();
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
		route_own(d->peer_own, &d->peer, &ep);
	endpoint_to(&ep, s->family, sa, len);
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
