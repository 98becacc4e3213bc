/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>

#include "core/real.h"
#include "core/sock.h"
#include "core/watch.h"

#define CHUNK 128

struct chunk {
	struct chunk *next;
	struct sock sock[CHUNK];
};

static struct chunk *chunks; /* never freed */
static struct sock *unused;
static struct lock pool; /* both; no other lock is taken under it */

struct sock *sock_new(int family)
{
	struct sock *s;

	lock_take(&pool);
	if (!unused) {
		struct chunk *chunk =
			mmap(NULL, sizeof(*chunk), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (chunk == MAP_FAILED) {
			lock_give(&pool);
			return NULL;
		}
		chunk->next = chunks;
		chunks = chunk;
		for (uint32_t i = 0; i < CHUNK; i++) {
			chunk->sock[i].next = unused;
			unused = &chunk->sock[i];
		}
	}
	s = unused;
	unused = s->next;
	lock_give(&pool);
	/* All but the locks, which a late look-up may be holding for a moment, and the count, which a late release may look at. */
	memset((char *)s + offsetof(struct sock, kind), 0, sizeof(*s) - offsetof(struct sock, kind));
	s->family = (uint8_t)family;
	s->fd = -1;
	s->born = gz_load(&shim.forks);
	gz_store(&s->refs, 1);
	return s;
}

void sock_free(struct sock *s)
{
	lock_take(&pool);
	s->next = unused;
	unused = s;
	lock_give(&pool);
}

int sock_open(int family, int type, int protocol)
{
	int fd = REAL(socket)(family, type, protocol);
	struct sock *s;

	if (fd < 0)
		return -errno;
	if ((unsigned int)fd >= FD_MAX)
		return fd;
	s = sock_new(family);
	if (!s) {
		fd_set_kernel(fd, GZ_KERNEL_NO_RESOURCE);
		return fd;
	}
	s->datagram = (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_DGRAM;
	gz_store(&s->nonblock, (type & SOCK_NONBLOCK) != 0);
	fd_forget(fd); /* what was here may have been closed behind our back */
	fd_put(fd, (uintptr_t)s);
	return fd;
}

static int kernel_says(int fd, int option)
{
	socklen_t len = sizeof(int);
	int value = -1;

	return REAL(getsockopt)(fd, SOL_SOCKET, option, &value, &len) ? -1 : value;
}

struct sock *sock_find_out(int fd)
{
	int family = kernel_says(fd, SO_DOMAIN), flags = REAL(fcntl)(fd, F_GETFL);
	struct sockaddr_storage at;
	socklen_t len = sizeof(at);
	struct sock *s;

	if ((unsigned int)fd >= FD_MAX || fd_word(fd) || flags < 0 || (family != AF_INET && family != AF_INET6) ||
	    kernel_says(fd, SO_TYPE) != SOCK_STREAM || kernel_says(fd, SO_PROTOCOL) != IPPROTO_TCP ||
	    REAL(getsockname)(fd, (struct sockaddr *)&at, &len))
		return NULL;
	s = sock_new(family);
	if (!s)
		return NULL;
	s->bound = endpoint_from((struct sockaddr *)&at, len, &s->local) && s->local.port;
	gz_store(&s->nonblock, (flags & O_NONBLOCK) != 0);
	sock_hold(s); /* the caller's */
	fd_put(fd, (uintptr_t)s);
	return s;
}

static int kernel_socket(int family, int *slot)
{
	int fd = __atomic_load_n(slot, __ATOMIC_ACQUIRE);

	if (fd > 0)
		return fd;
	shim_lock();
	if (*slot <= 0) {
		fd = REAL(socket)(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0)
			fd_own(fd, slot);
	}
	fd = *slot > 0 ? *slot : -errno;
	shim_unlock();
	return fd;
}

int sock_template(int family, int flags)
{
	int template = kernel_socket(family, &shim.template_fd[family == AF_INET6]), fd;

	if (template <0)
		return template;
	fd = REAL(fcntl)(template, flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	return fd < 0 ? -errno : fd;
}

uint64_t sock_netns(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	return fd < 0 || REAL(getsockopt)(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) ? 0 : cookie;
}

bool sock_v6only(const struct sock *s, int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return s->family == AF_INET6 && !REAL(getsockopt)(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, &len) && on;
}

int sock_fd(struct sock *s)
{
	int fd = s->fd;

	if (fd_sock(fd) == s)
		return fd;
	for (fd = 0; (fd = fd_next_sock(fd)) >= 0 && fd_sock(fd) != s; fd++)
		;
	s->fd = fd;
	return fd;
}

int sock_scratch(int family)
{
	return kernel_socket(family, &shim.scratch_fd[family == AF_INET6]);
}

void sock_attach(struct sock *s, struct attachment *a, uint32_t n)
{
	s->attachment = a;
	s->n = n;
	s->shared = a->ops->entry(a, n, &s->me, &s->peer);
	s->rx_block = s->tx_block = s->rx_size = s->tx_size = 0;
	s->grow_refused = a->ops->block_max;
	s->rx_mem = s->tx_mem = NULL;
	s->told_connected = s->told_refused = false;
	gz_store(&s->error_taken, false);
	gz_store(&s->broken, false);
	if (gz_load(&s->nonblock))
		gz_or(&s->me->flags, GZ_APP_NONBLOCK);
}

void sock_set_nonblock(struct sock *s, bool on)
{
	gz_store(&s->nonblock, on);
	if (sock_kind(s) != KIND_STREAM)
		return;
	if (on)
		gz_or(&s->me->flags, GZ_APP_NONBLOCK);
	else
		gz_and(&s->me->flags, ~GZ_APP_NONBLOCK);
}

struct sock *sock_adopt(struct attachment *a, uint32_t n, int family, int flags)
{
	struct sock *s = sock_new(family);

	if (!s)
		return NULL;
	s->template = true;
	gz_store(&s->nonblock, (flags & SOCK_NONBLOCK) != 0);
	sock_attach(s, a, n);
	s->told_connected = true;
	gz_store_release(&s->kind, KIND_STREAM);
	shim_explain(attachment_is_program(a) ? GZ_EXPLAINED_SAME_HOST : GZ_EXPLAINED_ACCEPTED);
	return s;
}

void sock_to_kernel(struct sock *s, int fd, enum gz_kernel_reason reason)
{
	/* It was FRESH, so its places in epoll sets are real ones already. */
	watch.forget(s);
	if (fd_sock(fd) == s)
		fd_set_kernel(fd, reason);
}

/* The last reference was given: no thread can find it any more, but one may just be entering it, or leaving it. */
static void release(struct sock *s)
{
	lock_take(&s->rx);
	lock_take(&s->tx);
	if (!refs_end(&s->refs)) {
		lock_give(&s->tx);
		lock_give(&s->rx);
		return;
	}
	watch.forget(s); /* under the lock: the thread that is leaving it may be in an epoll_ctl that has just put it into a set */
	if (sock_kind(s) != KIND_FRESH)
		sock_ops_of(s)->close(s);
	lock_give(&s->tx);
	lock_give(&s->rx);
	sock_free(s);
}

void sock_put(struct sock *s)
{
	if (refs_put(&s->refs))
		release(s);
}

int sock_error(const struct sock *s)
{
	uint32_t flags = sock_peer_flags(s);
	int error;

	if (!(flags & GZ_WORKER_DEAD) || gz_load(&s->error_taken))
		return 0;
	error = (int)gz_load(&s->peer->error);
	if (error <= 0 || error >= 4096)
		error = ECONNRESET;
	/* A reset after the peer's FIN: what it breaks is our writing. */
	if (error == ECONNRESET && flags & GZ_WORKER_FIN && !(gz_load(&s->me->flags) & GZ_APP_SHUT_WR))
		error = EPIPE;
	return error;
}

int sock_take_error(struct sock *s)
{
	int error = sock_error(s);

	if (error && atomic_exchange(&s->error_taken, true))
		error = 0; /* another thread was first */
	return error;
}

static void fd_closing(void *p)
{
	struct sock *s = p;

	if (gz_load(&s->refs) == 1 && (sock_kind(s) == KIND_LISTENER || sock_kind(s) == KIND_DGRAM))
		watch.closing(s);
}

static void fd_closed(void *p)
{
	struct sock *s = p;

	if (gz_load(&s->refs) == 1 && sock_kind(s) != KIND_FRESH && sock_ops_of(s)->linger)
		sock_ops_of(s)->linger(s);
}

static void fd_put_sock(void *p)
{
	sock_put(p);
}

const struct fd_ops sock_fd_ops = { .closing = fd_closing, .closed = fd_closed, .put = fd_put_sock };

void sock_after_fork(void)
{
	pool.word = 0;
	for (struct chunk *chunk = chunks; chunk; chunk = chunk->next)
		for (uint32_t i = 0; i < CHUNK; i++) {
			chunk->sock[i].rx.word = 0;
			chunk->sock[i].tx.word = 0;
		}
}
