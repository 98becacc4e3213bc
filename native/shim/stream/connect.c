/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include <gazelle/address.h>

#include "worker/attach.h"
#include "stream/connect.h"
#include "wait/epoll_set.h"
#include "worker/program.h"
#include "samehost/connect.h"
#include "core/sockopt.h"
#include "core/real.h"
#include "core/sock.h"
#include "wait/wait.h"
#include "worker/requests.h"
#include "samehost/served.h"

/* A worker that is just being restarted is worth waiting for, longer where the program waits anyway. */
#define PATIENCE_MS 500
#define NONBLOCK_PATIENCE_MS 20

static struct attachment *pick_live_of(bool draining)
{
	for (uint32_t tries = 0; tries < shim.workers; tries++) {
		uint32_t i = gz_add(&shim.turn, 1) % shim.workers;
		struct attachment *a = gz_load_acquire(&shim.attachments[i]);

		if (!a || shim.role[i] == GZ_ROLE_RECV || (gz_load(&a->page->state) == GZ_WORKER_DRAINING) != draining)
			continue;
		if (a->channel || !program_claim(a))
			return a;
	}
	return NULL;
}

/* One that drains only if no other lives: what there is to finish may need a connection. */
static struct attachment *pick_live(void)
{
	struct attachment *a = pick_live_of(false);

	return a ? a : pick_live_of(true);
}

/* The next worker that serves outgoing connections; NULL: none lives. */
static struct attachment *pick_worker(struct sock *s)
{
	struct attachment *a;

	attachment_check_all(); /* the one we would ask may just have died */
	a = pick_live();
	if (a || !gz_load(&shim.missing))
		return a;
	attach_wait(sock_nonblock(s) ? NONBLOCK_PATIENCE_MS : PATIENCE_MS);
	return pick_live();
}

static bool settled(struct sock *s)
{
	return sock_peer_flags(s) & (GZ_WORKER_CONNECTED | GZ_WORKER_DEAD);
}

/* How the attempt stands, both locks held: 0 = connected just now, or as connect() says it. */
static int outcome(struct sock *s)
{
	uint32_t flags = sock_peer_flags(s);

	if (flags & GZ_WORKER_DEAD && !s->told_connected) {
		int error = sock_take_error(s);

		s->told_refused = !(flags & GZ_WORKER_CONNECTED);
		return error ? -error : -ECONNABORTED;
	}
	if (!(flags & GZ_WORKER_CONNECTED))
		return -EALREADY;
	if (s->told_connected)
		return -EISCONN;
	s->told_connected = true;
	return 0;
}

/*
 * The worker could not even begin, which the kernel would say at once. Of what the wire says it never does, however soon that comes:
 * to a connect that does not wait it says EINPROGRESS.
 */
static bool refused_here(struct sock *s)
{
	uint32_t error = gz_load(&s->peer->error);

	return sock_peer_flags(s) & GZ_WORKER_DEAD && !s->attachment->pair && (error == EADDRNOTAVAIL || error == ENOBUFS);
}

/* The attempt is over and failed: a further connect() may try again. */
static bool failed(struct sock *s)
{
	return sock_peer_flags(s) & GZ_WORKER_DEAD && !(gz_load(&s->peer->flags) & GZ_WORKER_CONNECTED) &&
	       (gz_load(&s->error_taken) || s->told_refused);
}

/* Asks a worker to connect, both locks held; to NULL: for an end that is not connected. 0, or -errno. */
static int begin(struct sock *s, int fd, struct attachment *a, const struct endpoint *to, uint8_t own)
{
	struct gz_request request = {
		.op = GZ_REQUEST_CONNECT,
		.port = s->bound ? s->local.port : 0,
		.v6only = s->bound && sock_v6only(s, fd),
		.peer_port = to ? to->port : 0,
		.family = to ? s->family : AF_UNSPEC,
		.type = SOCK_STREAM,
		.own = own,
	};
	uint32_t n = request_number(a, s);

	if (!n)
		return -ENOBUFS;
	if (to)
		memcpy(request.peer, to->addr, sizeof(request.peer));
	if (s->bound)
		memcpy(request.addr, s->local.addr, sizeof(request.addr));
	request.sock = n;
	sock_attach(s, a, n);
	options_inherit(s, &s->options);
	if ((to && request.port && request_vouch(a, n, fd)) || request_post(a, &request)) {
		attachment_let_go(a, n);
		return -ENETDOWN;
	}
	return 0;
}

/* The address the other side sees, of a socket that is bound as `local` says: another of loopback than it connects to may be kept. */
static void source(struct endpoint *local, const struct endpoint *to)
{
	static const uint8_t loopback4[16] = { [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 };
	bool both4 = gz_addr_is4(to->addr) && gz_addr_is_loopback(to->addr);

	if (both4 && gz_addr_is4(local->addr) && gz_addr_is_loopback(local->addr))
		return;
	memcpy(local->addr, both4 ? loopback4 : to->addr, sizeof(local->addr));
}

/*
 * Towards a program on this host that is attached as well: no packets. The kernel socket under it takes the address and port
 * the other side will see. 1: not that way. Or -errno.
 */
static int same_host(struct sock *s, int fd, const struct endpoint *to)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct endpoint local = *to;
	struct pair_caller from = { .fd = fd };
	struct attachment *a;
	uint32_t n;
	int on = 1, err;

	attachment_claim_all(); /* in the child of a fork, else we see nobody listen */
	if (gz_addr_is_loopback(to->addr))
		from.netns = sock_netns(fd);
	if (s->template || !served_any(from.netns, to) || (!s->bound && !pair_reaches(&from, to)))
		return 1;
	if (!s->bound) {
		memset(local.addr, 0, sizeof(local.addr));
		source(&local, to);
		local.port = 0;
		s->options.value[OPTION_V6ONLY] = sock_v6only(s, fd); /* binding is going to set it */
		s->options.known |= 1ull << OPTION_V6ONLY;
		if (route_is_stack(&local) && !route_is_shared())
			(void)REAL(setsockopt)(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on));
		endpoint_to(&local, s->family, (struct sockaddr *)&sa, &len);
		if (REAL(bind)(fd, (struct sockaddr *)&sa, len) && errno != EINVAL) /* EINVAL: by a connection before this one */
			return 1;
	}
	len = sizeof(sa);
	if (REAL(getsockname)(fd, (struct sockaddr *)&sa, &len) || !endpoint_from((struct sockaddr *)&sa, len, &local))
		return 1;
	if (local.port < IPPORT_RESERVED && geteuid())
		return 1; /* the kernel let us have it, but the accepting program cannot know that */
	source(&local, to);
	err = pair_connect(&from, &local, to, s, &a, &n);
	if (err)
		return err; /* 1: another thread took the last number; bound to loopback it stays, which the kernel does not mind */
	sock_attach(s, a, n);
	return 0;
}

/* The address is the kernel's as well: it gives out the port, so that no connection of its own can have the same. */
static bool take_shared_port(struct sock *s, int fd, const struct endpoint *to, uint8_t own)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct endpoint local = { .port = 0 };

	if (s->bound || !route_is_shared())
		return true;
	route_own(own, to, &local);
	s->options.value[OPTION_V6ONLY] = sock_v6only(s, fd); /* binding is going to set it */
	s->options.known |= 1ull << OPTION_V6ONLY;
	endpoint_to(&local, s->family, (struct sockaddr *)&sa, &len);
	if (REAL(bind)(fd, (struct sockaddr *)&sa, len))
		return false;
	len = sizeof(sa);
	s->bound = !REAL(getsockname)(fd, (struct sockaddr *)&sa, &len) &&
	           endpoint_from((struct sockaddr *)&sa, len, &s->local);
	return s->bound;
}

/* First connect() of a FRESH socket. 1: the kernel's. */
static int first(struct sock *s, int fd, const struct endpoint *to, enum gz_kernel_reason *why)
{
	struct attachment *a;
	uint8_t own;
	int err;

	err = same_host(s, fd, to);
	if (err < 0)
		return err;
	if (!err) {
		gz_store_release(&s->kind, KIND_STREAM);
		shim_explain(GZ_EXPLAINED_SAME_HOST);
		epoll_became(s, false);
		return 0;
	}
	if (route_connect(s->bound ? &s->local : NULL, to, &own, why) == ROUTE_KERNEL)
		return 1;
	*why = GZ_KERNEL_NOT_ATTACHED;
	a = pick_worker(s);
	if (!a)
		return shim.fallback_fail ? -ENETDOWN : 1;
	*why = GZ_KERNEL_NO_RESOURCE;
	if (!take_shared_port(s, fd, to, own))
		return 1;
	err = begin(s, fd, a, to, own);
	if (err)
		return shim.fallback_fail ? err : 1;
	gz_store_release(&s->kind, KIND_STREAM);
	shim_explain(GZ_EXPLAINED_CONNECTED);
	epoll_became(s, false);
	return 0;
}

/* s is on another number now. */
static void moved(struct sock *s, struct attachment *from, uint32_t n)
{
	epoll_unclaim(s, from, n);
	attachment_let_go(from, n);
	epoll_claim(s, s->attachment, s->n);
}

/* A new attempt of a socket whose last one is over, as the kernel allows it, on a number of its own. */
static int again(struct sock *s, int fd, const struct endpoint *to)
{
	struct attachment *a = s->attachment;
	uint32_t n = s->n;
	int err;

	if (!failed(s))
		return outcome(s);
	err = same_host(s, fd, to);
	if (err > 0) {
		struct attachment *worker = pick_worker(s);
		enum gz_kernel_reason why;
		uint8_t own;

		if (route_connect(s->bound ? &s->local : NULL, to, &own, &why) == ROUTE_KERNEL)
			return -ENETUNREACH; /* it is the stack's by now */
		err = worker ? begin(s, fd, worker, to, own) : -ENETDOWN;
	}
	if (err)
		return err;
	moved(s, a, n);
	return -EINPROGRESS;
}

/* connect() to AF_UNSPEC: the connection is broken off, and the socket is as one that never had one. Both locks held. */
static int disconnect(struct sock *s)
{
	struct attachment *a = s->attachment, *worker = pick_worker(s);
	struct gz_end *me = s->me;
	uint32_t n = s->n;
	int err = worker ? begin(s, -1, worker, NULL, 0) : -ENETDOWN;

	if (err)
		return err;
	gz_or(&me->flags, GZ_APP_ABORT);
	moved(s, a, n);
	s->told_refused = true;
	return 0;
}

int connect_start(struct sock *s, int fd, const struct sockaddr *sa, socklen_t len)
{
	enum gz_kernel_reason why = GZ_KERNEL_ADDRESS;
	struct endpoint to;
	int err;

	lock_take(&s->rx);
	lock_take(&s->tx);
	if (sock_kind(s) == KIND_LISTENER) {
		err = -EISCONN;
		goto out;
	}
	if (sock_kind(s) == KIND_STREAM && len >= sizeof(sa->sa_family) && sa->sa_family == AF_UNSPEC) {
		sock_ready(s);
		err = disconnect(s);
		if (err)
			goto out;
		goto wait;
	}
	if (!endpoint_from(sa, len, &to) || sa->sa_family != s->family || (gz_addr_is4(to.addr) && sock_v6only(s, fd))) {
		err = sock_kind(s) == KIND_FRESH ? 2 : -EAFNOSUPPORT; /* the kernel has the right error for a fresh one */
		goto out;
	}
	if (sock_kind(s) == KIND_STREAM) {
		sock_ready(s);
		err = again(s, fd, &to);
		if (err != -EINPROGRESS && (err != -EALREADY || sock_nonblock(s)))
			goto out;
	} else {
		err = first(s, fd, &to, &why);
		if (err)
			goto out;
	}
	if (sock_nonblock(s)) {
		err = refused_here(s) ? outcome(s) : -EINPROGRESS;
		goto out;
	}
wait:
	lock_give(&s->tx);
	lock_give(&s->rx);
	err = wait_for(s, settled, -1, s->told_refused ? -1 : options_patience(s->options.sndtimeo_ns));
	lock_take(&s->rx);
	lock_take(&s->tx);
	if (s->told_refused)
		err = 0; /* disconnected */
	else if (!err)
		err = outcome(s);
	else if (err == -EAGAIN)
		err = -EINPROGRESS; /* SO_SNDTIMEO */
	lock_give(&s->tx);
	lock_give(&s->rx);
	return err;

out:
	lock_give(&s->tx);
	lock_give(&s->rx);
	if (err == 1)
		sock_to_kernel(s, fd, why);
	return err;
}
