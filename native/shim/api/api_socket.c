/* SPDX-License-Identifier: MulanPSL-2.0 */
/* socket, bind, listen, accept, connect, shutdown, names and options. */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include <gazelle/address.h>

#include "api/api.h"
#include "worker/attach.h"
#include "stream/connect.h"
#include "udp/dgram.h"
#include "udp/dgram_options.h"
#include "stream/listen.h"
#include "core/sockopt.h"
#include "core/options.h"
#include "core/real.h"
#include "core/route.h"
#include "core/sock.h"
#include "stream/stream.h"
#include "worker/group.h"
#include "stream/accept.h"

/* The socket of a descriptor with a reference, or NULL. */
static struct sock *borrow(int fd)
{
	struct sock *s = fd_sock(fd) ? sock_enter(fd, false) : NULL;

	if (s) {
		if (sock_kind(s) == KIND_STREAM)
			sock_ready(s);
		sock_hold(s);
		lock_give(&s->rx);
	}
	return s;
}

EXPORT int socketpair(int domain, int type, int protocol, int ends[2])
{
	if (domain == AF_UNIX)
		group_expect_passing();
	return REAL(socketpair)(domain, type, protocol, ends);
}

EXPORT int socket(int domain, int type, int protocol)
{
	bool inet = domain == AF_INET || domain == AF_INET6;
	int kind = type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC), fd;

	if (!inet)
		return REAL(socket)(domain, type, protocol);
	if (kind == SOCK_STREAM && (!protocol || protocol == IPPROTO_TCP)) {
		if (group_on())
			return (int)api_return(sock_open(domain, type, protocol));
		if (shim.fallback_fail) {
			errno = ENETDOWN;
			return -1;
		}
		fd = REAL(socket)(domain, type, protocol);
		if (fd >= 0 && shim_active())
			fd_set_kernel(fd, GZ_KERNEL_NOT_ATTACHED);
		return fd;
	}
	/* Never the reason to fail: the kernel serves datagrams as well. */
	if (kind == SOCK_DGRAM && (!protocol || protocol == IPPROTO_UDP) && group_on())
		return (int)api_return(sock_open(domain, type, protocol));
	fd = REAL(socket)(domain, type, protocol);
	if (fd >= 0 && shim_active())
		fd_set_kernel(fd, GZ_KERNEL_FAMILY);
	return fd;
}

/* Again if the port is one that a process which has ended had of the stack's, and the workers had not seen that. */
static int bind_patiently(int fd, const struct sockaddr *sa, socklen_t len, const struct endpoint *at)
{
	bool ours = route_is_stack(at) || gz_addr_is_any(at->addr) || gz_addr_is_loopback(at->addr);

	if (!REAL(bind)(fd, sa, len))
		return 0;
	if (errno != EADDRINUSE || !ours || !at->port)
		return -1;
	if (attach_free_ports())
		return REAL(bind)(fd, sa, len);
	errno = EADDRINUSE;
	return -1;
}

/*
 * Unless it is shared, the stack's address is no interface's: the placeholder may have it all the same, and the kernel still says
 * EADDRINUSE.
 */
static int bind_placeholder(struct sock *s, int fd, const struct sockaddr *sa, socklen_t len, const struct endpoint *at)
{
	int on = 1, off = 0, r, err;

	if (!route_is_stack(at) || route_is_shared())
		return bind_patiently(fd, sa, len, at);
	(void)REAL(setsockopt)(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on));
	r = bind_patiently(fd, sa, len, at);
	err = errno;
	if (r)
		(void)REAL(setsockopt)(fd, IPPROTO_IP, IP_FREEBIND, &off, sizeof(off));
	errno = err;
	return r;
}

EXPORT int bind(int fd, __CONST_SOCKADDR_ARG addr, socklen_t len)
{
	const struct sockaddr *sa = addr.__sockaddr__;
	struct sock *s = borrow(fd);
	struct endpoint at;
	int r;

	if (!s)
		return REAL(bind)(fd, sa, len);
	if (sock_kind(s) != KIND_FRESH) {
		r = -1;
		errno = EINVAL;
	} else if (!endpoint_from(sa, len, &at)) {
		r = REAL(bind)(fd, sa, len);
	} else {
		r = bind_placeholder(s, fd, sa, len, &at);
		struct sockaddr_storage got;
		socklen_t got_len = sizeof(got);
		if (!r && !REAL(getsockname)(fd, (struct sockaddr *)&got, &got_len) &&
		    endpoint_from((struct sockaddr *)&got, got_len, &s->local))
			s->bound = true;
		if (!r && s->datagram && s->bound) {
			int err = dgram_bound(s, fd);

			r = err < 0 ? (int)api_return(err) : 0;
		}
	}
	sock_unhold(s);
	return r;
}

EXPORT int listen(int fd, int backlog)
{
	struct sock *s = borrow(fd);
	int err;

	if (!s && group_on())
		s = sock_find_out(fd);
	if (!s)
		return REAL(listen)(fd, backlog);
	err = listen_start(s, fd, backlog);
	sock_unhold(s);
	return (int)api_return(err);
}

EXPORT int accept4(int fd, __SOCKADDR_ARG addr, socklen_t *len, int flags)
{
	struct sockaddr *sa = addr.__sockaddr__;
	struct sock *s = sock_enter(fd, false);

	if (!s)
		return REAL(accept4)(fd, sa, len, flags);
	if (s->datagram && !(flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC))) {
		lock_give(&s->rx);
		errno = EOPNOTSUPP;
		return -1;
	}
	if (sock_kind(s) != KIND_LISTENER || flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) {
		lock_give(&s->rx);
		errno = EINVAL;
		return -1;
	}
	return (int)api_return(accept_start(s, fd, sa, len, flags));
}

EXPORT int accept(int fd, __SOCKADDR_ARG addr, socklen_t *len)
{
	if (!fd_sock(fd))
		return REAL(accept)(fd, addr.__sockaddr__, len);
	return accept4(fd, addr, len, 0);
}

EXPORT int connect(int fd, __CONST_SOCKADDR_ARG addr, socklen_t len)
{
	const struct sockaddr *sa = addr.__sockaddr__;
	struct sock *s = borrow(fd);
	int err;

	if (!s)
		return REAL(connect)(fd, sa, len);
	err = s->datagram ? dgram_connect(s, fd, sa, len) : connect_start(s, fd, sa, len);
	sock_unhold(s);
	return err > 0 ? REAL(connect)(fd, sa, len) : (int)api_return(err);
}

EXPORT int shutdown(int fd, int how)
{
	struct sock *s = borrow(fd);
	int r;

	if (!s)
		return REAL(shutdown)(fd, how);
	if (sock_kind(s) == KIND_STREAM) {
		sock_ready(s);
		r = (int)api_return(stream_shutdown(s, how));
	} else if (sock_kind(s) == KIND_DGRAM) {
		r = (int)api_return(dgram_shutdown(s, how));
	} else {
		r = REAL(shutdown)(fd, how);
		if (!r && sock_kind(s) == KIND_LISTENER && how != SHUT_WR) {
			lock_take(&s->rx);
			lock_take(&s->tx);
			listen_shutdown(s);
			lock_give(&s->tx);
			lock_give(&s->rx);
		}
	}
	sock_unhold(s);
	return r;
}

/* getsockname or getpeername of a stream; a placeholder knows its own name. */
static int name_of(struct sock *s, bool peer, struct sockaddr *sa, socklen_t *len)
{
	const struct gz_name *name = sock_name(s);
	struct endpoint ep = { 0 };

	if (!sa || !len)
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	if (peer && !stream_connected(s))
		return -ENOTCONN;
	memcpy(ep.addr, peer ? name->peer_addr : name->local_addr, sizeof(ep.addr));
	ep.port = peer ? name->peer_port : name->local_port;
	endpoint_to(&ep, s->family, sa, len);
	return 0;
}

/* True: a datagram socket of the stack, and *err is the answer. */
static bool dgram_named(int fd, bool peer, struct sockaddr *sa, socklen_t *len, int *err)
{
	struct sock *s = dgram_enter(fd, false);

	if (!s)
		return false;
	*err = dgram_name(s, peer, sa, len);
	sock_unhold(s);
	return *err <= 0;
}

EXPORT int getsockname(int fd, __SOCKADDR_ARG addr, socklen_t *len)
{
	struct sockaddr *sa = addr.__sockaddr__;
	struct sock *s = sock_enter_stream(fd, false);
	int err;

	if (!s && dgram_named(fd, false, sa, len, &err))
		return (int)api_return(err);
	if (!s)
		return REAL(getsockname)(fd, sa, len);
	err = name_of(s, false, sa, len);
	lock_give(&s->rx);
	return (int)api_return(err);
}

EXPORT int getpeername(int fd, __SOCKADDR_ARG addr, socklen_t *len)
{
	struct sockaddr *sa = addr.__sockaddr__;
	struct sock *s = sock_enter_stream(fd, false);
	int err;

	if (!s && dgram_named(fd, true, sa, len, &err))
		return (int)api_return(err);
	if (!s)
		return REAL(getpeername)(fd, sa, len);
	err = name_of(s, true, sa, len);
	lock_give(&s->rx);
	return (int)api_return(err);
}

EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	struct sock *s = borrow(fd);
	int err;

	if (!s)
		return REAL(getsockopt)(fd, level, name, value, len);
	err = s->datagram ? dgram_option_get(s, fd, level, name, value, len) : options_get(s, fd, level, name, value, len);
	sock_unhold(s);
	return (int)api_return(err);
}

EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	struct sock *s = borrow(fd);
	int err;

	if (!s)
		return REAL(setsockopt)(fd, level, name, value, len);
	err = s->datagram ? dgram_option_set(s, fd, level, name, value, len) : options_set(s, fd, level, name, value, len);
	sock_unhold(s);
	return (int)api_return(err);
}
