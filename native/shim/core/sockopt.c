/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/time.h>

#include "core/sockopt.h"
#include "core/real.h"
#include "core/sock.h"
#include "core/tcp_info.h"

#define NOWHERE 0 /* the shim alone knows it; offset 0 is nodelay, which is TCP's first */

struct option_row {
	int level, name;
	uint16_t shared; /* 1 + offset in struct gz_options; NOWHERE */
	bool flag;       /* any value but 0 means 1 */
};

#define SHARED(field) (1 + offsetof(struct gz_options, field))

static const struct option_row rows[OPTIONS] = {
	[OPTION_NODELAY] = { IPPROTO_TCP, TCP_NODELAY, SHARED(nodelay), true },
	[OPTION_CORK] = { IPPROTO_TCP, TCP_CORK, SHARED(cork), true },
	[OPTION_KEEPALIVE] = { SOL_SOCKET, SO_KEEPALIVE, SHARED(keepalive), true },
	[OPTION_KEEPIDLE] = { IPPROTO_TCP, TCP_KEEPIDLE, SHARED(keepidle_s), false },
	[OPTION_KEEPINTVL] = { IPPROTO_TCP, TCP_KEEPINTVL, SHARED(keepintvl_s), false },
	[OPTION_KEEPCNT] = { IPPROTO_TCP, TCP_KEEPCNT, SHARED(keepcnt), false },
	[OPTION_USER_TIMEOUT] = { IPPROTO_TCP, TCP_USER_TIMEOUT, SHARED(user_timeout_ms), false },
	[OPTION_MAXSEG] = { IPPROTO_TCP, TCP_MAXSEG, SHARED(maxseg), false },
	[OPTION_RCVBUF] = { SOL_SOCKET, SO_RCVBUF, SHARED(rcvbuf), false },
	[OPTION_SNDBUF] = { SOL_SOCKET, SO_SNDBUF, SHARED(sndbuf), false },
	[OPTION_TOS] = { IPPROTO_IP, IP_TOS, SHARED(tos), false },
	[OPTION_TTL] = { IPPROTO_IP, IP_TTL, SHARED(ttl), false },
	[OPTION_REUSEADDR] = { SOL_SOCKET, SO_REUSEADDR, NOWHERE, true },
	[OPTION_REUSEPORT] = { SOL_SOCKET, SO_REUSEPORT, NOWHERE, true },
	[OPTION_QUICKACK] = { IPPROTO_TCP, TCP_QUICKACK, NOWHERE, true },
	[OPTION_DEFER_ACCEPT] = { IPPROTO_TCP, TCP_DEFER_ACCEPT, SHARED(defer_accept_s), false },
	[OPTION_PRIORITY] = { SOL_SOCKET, SO_PRIORITY, NOWHERE, false },
	[OPTION_RCVLOWAT] = { SOL_SOCKET, SO_RCVLOWAT, NOWHERE, false },
	[OPTION_OOBINLINE] = { SOL_SOCKET, SO_OOBINLINE, NOWHERE, true },
	[OPTION_V6ONLY] = { IPPROTO_IPV6, IPV6_V6ONLY, NOWHERE, true },
	[OPTION_SYNCNT] = { IPPROTO_TCP, TCP_SYNCNT, NOWHERE, false },
	[OPTION_LINGER2] = { IPPROTO_TCP, TCP_LINGER2, NOWHERE, false },
	[OPTION_WINDOW_CLAMP] = { IPPROTO_TCP, TCP_WINDOW_CLAMP, NOWHERE, false },
	[OPTION_NOTSENT_LOWAT] = { IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOWHERE, false },
	[OPTION_TCLASS] = { IPPROTO_IPV6, IPV6_TCLASS, SHARED(tos), false },
	[OPTION_HOPS] = { IPPROTO_IPV6, IPV6_UNICAST_HOPS, SHARED(ttl), false },
	[OPTION_BROADCAST] = { SOL_SOCKET, SO_BROADCAST, NOWHERE, true },
	[OPTION_DONTROUTE] = { SOL_SOCKET, SO_DONTROUTE, NOWHERE, true },
};

/* What the kernel may be asked of any socket of this family; nothing of it can be set on a connection of the stack. */
static bool kernel_may_answer(int level, int name)
{
	return level == SOL_SOCKET && (name == SO_TYPE || name == SO_DOMAIN || name == SO_PROTOCOL ||
	                               name == SO_ACCEPTCONN || name == SO_COOKIE || name == SO_MARK ||
	                               name == SO_INCOMING_CPU || name == SO_PEERCRED || name == SO_RCVBUFFORCE ||
	                               name == SO_SNDBUFFORCE || name == SO_MAX_PACING_RATE || name == SO_BINDTODEVICE);
}

static int find_row(int level, int name)
{
	for (int o = 0; o < OPTIONS; o++)
		if (rows[o].level == level && rows[o].name == name)
			return o;
	return -1;
}

static _Atomic uint32_t *shared_option(struct sock *s, int o)
{
	return (_Atomic uint32_t *)((char *)&s->shared->options + rows[o].shared - 1);
}

static void tell_stack(struct sock *s)
{
	gz_or(&s->me->flags, GZ_APP_OPTIONS);
	if (s->attachment->channel && sock_kind(s) == KIND_STREAM)
		sock_ring(s);
}

static void set_abort(struct sock *s)
{
	if (s->options.linger && !s->options.linger_s)
		gz_or(&s->me->flags, GZ_APP_ABORT);
	else if (gz_load(&s->me->flags) & GZ_APP_ABORT)
		gz_and(&s->me->flags, ~GZ_APP_ABORT);
}

static int64_t timeo_ns(const void *value)
{
	struct timeval tv;

	memcpy(&tv, value, sizeof(tv));
	if (tv.tv_sec < 0)
		return -1;
	if (tv.tv_sec > INT64_MAX / 2000000000)
		return 0; /* longer than anyone waits */
	return (int64_t)tv.tv_sec * 1000000000 + (int64_t)tv.tv_usec * 1000;
}

/* The descriptor whose kernel socket may be changed on behalf of s. */
static int kernel_fd(struct sock *s, int fd)
{
	return s->template ? sock_scratch(s->family) : fd;
}

/*
 * A kernel socket that has this one's receive buffer and no other's: the kernel bounds SO_RCVLOWAT by it. The caller closes
 * it.
 */
static int like_ours(const struct sock *s)
{
	int fd = REAL(socket)(s->family, SOCK_STREAM | SOCK_CLOEXEC, 0), half = s->options.value[OPTION_RCVBUF] / 2;

	if (fd < 0)
		return -errno;
	if (s->options.known & 1ull << OPTION_RCVBUF)
		(void)REAL(setsockopt)(fd, SOL_SOCKET, SO_RCVBUF, &half, sizeof(half));
	return fd;
}

static int set_congestion(const void *value, socklen_t len)
{
	/* The stack has one algorithm, and says so. */
	return len >= 4 && !memcmp(value, "reno", 4) && (len == 4 || !((const char *)value)[4]) ? 0 : -ENOENT;
}

/* Why an option the stack does not have cannot be set, in the words of a kernel that does not have it either. */
static int refusal(int family, int level, int name, const void *value, socklen_t len)
{
	if (level == SOL_SOCKET && name == SO_BINDTODEVICE)
		return len && strncmp(value, shim.group->device, len) ? -ENODEV : 0; /* it never sees another */
	if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && family == AF_INET6)
		return -EINVAL; /* too late for a bound socket */
	if (level == IPPROTO_TCP && name == TCP_ULP)
		return -ENOENT; /* no such protocol */
	if (level == IPPROTO_TCP && name == TCP_MD5SIG && len < sizeof(struct tcp_md5sig))
		return -EINVAL;
	return -ENOPROTOOPT;
}

/*
 * What is more than a hint, and only the kernel keeps: a key, a filter, a route, a limit of who is heard. A stack that went on
 * without it would break a promise. `if_set`: with the value 0 it promises nothing.
 */
static const struct promise {
	int level, name;
	bool if_set;
} promises[] = {
	{ SOL_SOCKET, SO_ATTACH_FILTER, false },
	{ SOL_SOCKET, SO_ATTACH_BPF, false },
	{ SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, false },
	{ SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, false },
	{ SOL_SOCKET, SO_BINDTODEVICE, true },
	{ SOL_SOCKET, SO_BINDTOIFINDEX, true },
	{ SOL_SOCKET, SO_MARK, true },
	{ SOL_SOCKET, SO_MAX_PACING_RATE, true },
	{ IPPROTO_IP, IP_OPTIONS, true },
	{ IPPROTO_IP, IP_TRANSPARENT, true },
	{ IPPROTO_IP, IP_MINTTL, true },
	{ IPPROTO_IPV6, IPV6_TRANSPARENT, true },
	{ IPPROTO_IPV6, IPV6_MINHOPCOUNT, true },
	{ IPPROTO_TCP, TCP_MD5SIG, false },
	{ IPPROTO_TCP, TCP_MD5SIG_EXT, false },
	{ IPPROTO_TCP, TCP_REPAIR, true },
};

static const struct promise *promise_of(int level, int name)
{
	for (size_t i = 0; i < sizeof(promises) / sizeof(promises[0]); i++)
		if (promises[i].level == level && promises[i].name == name)
			return &promises[i];
	return NULL;
}

/* True if the kernel has just made it with this value, which it has read. */
static bool is_promised(const struct promise *promise, const void *value, socklen_t len)
{
	int number = 0;

	memcpy(&number, value, len < sizeof(number) ? len : sizeof(number));
	if (promise->level == SOL_SOCKET && promise->name == SO_BINDTODEVICE && number)
		return strncmp(value, shim.group->device, len) != 0;
	return number || !promise->if_set;
}

int options_set(struct sock *s, int fd, int level, int name, const void *value, socklen_t len)
{
	bool stream = sock_kind(s) == KIND_STREAM;
	int o = find_row(level, name), kfd, err = 0, now = 0;
	bool timeo = level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO);
	bool linger = level == SOL_SOCKET && name == SO_LINGER, own;
	const struct promise *promise = promise_of(level, name);
	socklen_t now_len = sizeof(now);

	if (stream && level == IPPROTO_TCP && name == TCP_CONGESTION)
		return set_congestion(value, len);
	if (stream && (o < 0 || o == OPTION_V6ONLY) && !timeo && !linger)
		return refusal(s->family, level, name, value, len);
	if (promise && sock_kind(s) == KIND_LISTENER)
		return -ENOPROTOOPT; /* too late to be the kernel's alone */
	own = s->template && o == OPTION_RCVLOWAT;
	kfd = own ? like_ours(s) : kernel_fd(s, fd);
	if (kfd < 0)
		return kfd;
	if (REAL(setsockopt)(kfd, level, name, value, len)) {
		err = -errno;
		goto out;
	}
	lock_take(&s->tx);
	if (timeo && name == SO_RCVTIMEO)
		s->options.rcvtimeo_ns = timeo_ns(value);
	else if (timeo)
		s->options.sndtimeo_ns = timeo_ns(value);
	if (linger) {
		struct linger l;

		memcpy(&l, value, sizeof(l));
		s->options.linger = l.l_onoff != 0;
		s->options.linger_s = l.l_linger;
		if (stream)
			set_abort(s);
	}
	if (o >= 0) {
		/* As the kernel understood it: it doubles, bounds and rounds. */
		if (REAL(getsockopt)(kfd, level, name, &now, &now_len))
			memcpy(&now, value, len < sizeof(now) ? len : sizeof(now));
		s->options.known |= 1ull << o;
		s->options.value[o] = rows[o].flag ? now != 0 : now;
		if (stream && rows[o].shared) {
			gz_store(shared_option(s, o), (uint32_t)s->options.value[o]);
			tell_stack(s);
		}
	}
	lock_give(&s->tx);
	if (o >= 0 && sock_kind(s) != KIND_FRESH && sock_ops_of(s)->option_changed)
		sock_ops_of(s)->option_changed(s, (enum option)o);
	if (promise && sock_kind(s) == KIND_FRESH && is_promised(promise, value, len))
		sock_to_kernel(s, fd, GZ_KERNEL_OPTION);
out:
	if (own)
		UNCANCELLED(close, kfd);
	return err;
}

/* Copies as getsockopt does: at most *len bytes, and how many there were. */
static int give(void *value, socklen_t *len, const void *data, socklen_t size)
{
	if ((int)*len < 0)
		return -EINVAL;
	if (*len > size)
		*len = size;
	memcpy(value, data, *len);
	return 0;
}

static int give_timeo(void *value, socklen_t *len, int64_t ns)
{
	struct timeval tv = { 0 };

	if (ns > 0)
		tv = (struct timeval){ .tv_sec = ns / 1000000000, .tv_usec = ns / 1000 % 1000000 };
	return give(value, len, &tv, sizeof(tv));
}

static int get_stream_only(struct sock *s, int level, int name, void *value, socklen_t *len)
{
	struct linger linger = { .l_onoff = s->options.linger, .l_linger = s->options.linger_s };
	int number;

	if (level == IPPROTO_TCP && name == TCP_INFO)
		return tcp_info_get(s, value, len);
	if (level == IPPROTO_TCP && name == TCP_CONGESTION)
		return give(value, len, "reno\0\0\0\0\0\0\0\0\0\0\0", 16);
	if (level == IPPROTO_TCP && name == TCP_ULP) {
		*len = 0; /* none */
		return 0;
	}
	if (level == IPPROTO_TCP && name == TCP_MAXSEG) {
		number = sock_name(s)->mss;
		return give(value, len, &number, sizeof(number));
	}
	if (level != SOL_SOCKET && level != IPPROTO_TCP && level != IPPROTO_IP && level != IPPROTO_IPV6)
		return -EOPNOTSUPP;
	if (level != SOL_SOCKET)
		return -ENOPROTOOPT;
	switch (name) {
	case SO_ERROR:
		number = sock_take_error(s);
		return give(value, len, &number, sizeof(number));
	case SO_LINGER:
		return give(value, len, &linger, sizeof(linger));
	case SO_RCVTIMEO:
		return give_timeo(value, len, s->options.rcvtimeo_ns);
	case SO_SNDTIMEO:
		return give_timeo(value, len, s->options.sndtimeo_ns);
	default:
		return -ENOPROTOOPT;
	}
}

/* IPv4 sockets know nothing of IPv6, not even by the name of an option. */
static bool other_family(const struct sock *s, int level)
{
	return level == IPPROTO_IPV6 && s->family == AF_INET;
}

int options_get(struct sock *s, int fd, int level, int name, void *value, socklen_t *len)
{
	int o = find_row(level, name), err;

	if (sock_kind(s) != KIND_STREAM)
		return REAL(getsockopt)(fd, level, name, value, len) ? -errno : 0;
	if (!value || !len)
		return -EFAULT;
	if (other_family(s, level))
		return -EOPNOTSUPP;
	if (o >= 0 && o != OPTION_MAXSEG && s->options.known & 1ull << o) /* of that, what came of it is told */
		return give(value, len, &s->options.value[o], sizeof(s->options.value[o]));
	err = get_stream_only(s, level, name, value, len);
	if (err != -ENOPROTOOPT || (o < 0 && !kernel_may_answer(level, name)))
		return err;
	/* Never set: the kernel's own default, from a socket nobody sets anything on. */
	return REAL(getsockopt)(fd, level, name, value, len) ? -errno : 0;
}

void options_inherit(struct sock *s, const struct options *from)
{
	if (from != &s->options)
		s->options = *from;
	for (int o = 0; o < OPTIONS; o++)
		if (s->options.known & 1ull << o && rows[o].shared)
			gz_store(shared_option(s, o), (uint32_t)s->options.value[o]);
	set_abort(s);
	/* The worker applies them when it next looks: with the request for connections out, by the ring for accepted ones. */
	if (s->options.known)
		tell_stack(s);
}
