/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>

#include "wait/epoll_set.h"
#include "core/eventq.h"
#include "core/iov.h"
#include "core/sock.h"
#include "core/lost.h"
#include "core/window.h"
#include "stream/stream.h"
#include "wait/wait.h"

/* ------------------------------------------------------------------ receiving */

static uint32_t unread(const struct sock *s)
{
	/* The acquire pairs with the peer's publish: the bytes are written. */
	return gz_load_acquire(&s->peer->out_head) - gz_load(&s->me->in_tail);
}

/* The block bytes lie in. Called after new bytes were seen, so the peer does not change it before they are consumed. */
static bool see_rx_block(struct sock *s)
{
	uint32_t block = gz_load(&s->peer->out_block);

	if (__builtin_expect(block == s->rx_block, 1))
		return true;
	s->rx_mem = window_block(s->attachment, block);
	s->rx_size = s->rx_mem ? GZ_BLOCK_SIZE(block) : 0;
	s->rx_block = s->rx_mem ? block : 0;
	return s->rx_mem != NULL;
}

/* The worker times this request (enum gz_stage): when it was read, and when the answer is written. */
static void stamp_read(struct sock *s, uint32_t trace)
{
	s->traced = trace;
	gz_store(&s->me->aux[GZ_AUX_READ_NS], (uint32_t)now_ns());
	gz_store(&s->trace_open, true);
}

/* Copies what there is, at most `most`. Bytes, or -EPROTO if the peer's indices cannot be. */
static ssize_t take(struct sock *s, struct iov *to, size_t most, int flags)
{
	bool alone = s->born == gz_load(&shim.forks);

	for (;;) {
		uint32_t tail = gz_load(&s->me->in_tail), avail = gz_load_acquire(&s->peer->out_head) - tail;
		uint32_t len = avail < most ? avail : (uint32_t)most;
		struct iov at = *to;

		if (!avail)
			return 0;
		if (!see_rx_block(s) || avail > s->rx_size)
			return -EPROTO;
		if (flags & MSG_TRUNC)
			iov_skip(&at, len);
		else
			iov_copy_out(&at, s->rx_mem, s->rx_size, gz_load(&s->peer->out_base), tail, len);
		if (flags & MSG_PEEK) {
			*to = at;
			return len;
		}
		if (__builtin_expect(alone, 1)) {
			gz_fifo_consume(s->me, len);
		} else if (!gz_cas(&s->me->in_tail, &tail, tail + len)) {
			continue; /* another process read meanwhile: what we copied is not ours */
		}
		*to = at;
		if (__builtin_expect(gz_load(&s->peer->aux[GZ_AUX_TRACE]) != s->traced, 0))
			stamp_read(s, gz_load(&s->peer->aux[GZ_AUX_TRACE]));
		gz_fence(); /* pairs with the worker's between setting WANT_SPACE and looking at in_tail again */
		if (gz_load(&s->peer->flags) & GZ_WORKER_WANT_SPACE)
			sock_ring(s);
		return len;
	}
}

/* Nothing to read: is that the end? 0 = EOF, -EAGAIN = not yet, or the connection's error. */
static int rx_end(struct sock *s)
{
	uint32_t flags = sock_peer_flags(s); /* its acquire: if it says FIN, all bytes before it are visible */

	if (unread(s))
		return -EAGAIN;
	if (flags & GZ_WORKER_FIN)
		return 0; /* whatever came after it: an error is for writers, and SO_ERROR */
	if (flags & GZ_WORKER_DEAD) {
		int error = sock_take_error(s);

		return error ? -error : s->told_refused ? -ENOTCONN : 0;
	}
	return gz_load(&s->me->flags) & GZ_APP_SHUT_RD ? 0 : -EAGAIN;
}

/* SO_RCVLOWAT */
static uint32_t low_water(const struct sock *s)
{
	int32_t bytes = s->options.known & 1ull << OPTION_RCVLOWAT ? s->options.value[OPTION_RCVLOWAT] : 1;

	return bytes > 1 ? (uint32_t)bytes : 1;
}

/* So many bytes are there, or as many as the FIFO holds. */
static bool has_unread(const struct sock *s, uint32_t bytes)
{
	uint32_t n = unread(s);

	return n >= bytes || (n && gz_load(&s->peer->flags) & GZ_WORKER_WANT_SPACE);
}

/* For wait_for: a read would not wait. */
static bool is_readable(struct sock *s)
{
	return unread(s) || sock_peer_flags(s) & (GZ_WORKER_FIN | GZ_WORKER_DEAD) ||
	       gz_load(&s->me->flags) & GZ_APP_SHUT_RD;
}

static bool peeks_enough(struct sock *s)
{
	return has_unread(s, gz_load(&s->peek_want)) || sock_peer_flags(s) & (GZ_WORKER_FIN | GZ_WORKER_DEAD) ||
	       gz_load(&s->me->flags) & GZ_APP_SHUT_RD;
}

/* Waits off the lock; the first time it takes a reference. 0, -EAGAIN or -EINTR. */
static int wait_rx(struct sock *s, bool (*ready)(struct sock *s), bool *held)
{
	int err;

	if (!*held)
		sock_hold(s);
	*held = true;
	lock_give(&s->rx);
	err = wait_for(s, ready, -1, options_patience(s->options.rcvtimeo_ns));
	lock_take(&s->rx);
	/* The descriptor may be gone; the caller gives the lock back before the last reference goes. */
	return err;
}

/* Peeked bytes stay, so they cannot be gathered: before a look there must be as many as are wanted, or the last. */
static int wait_peek(struct sock *s, size_t target, int flags, bool *held)
{
	int err = 0;

	gz_store(&s->peek_want, target < UINT32_MAX ? (uint32_t)target : UINT32_MAX);
	while (!err && !peeks_enough(s)) {
		if (flags & MSG_DONTWAIT || sock_nonblock(s))
			return 0;
		err = wait_rx(s, peeks_enough, held);
		gz_store(&s->peek_want, (uint32_t)target);
	}
	return err;
}

ssize_t stream_recv(struct sock *s, const struct iovec *iov, int count, int flags)
{
	struct iov to;
	ssize_t total = iov_begin(&to, iov, count), done = 0;
	size_t target = flags & MSG_WAITALL ? (size_t)total : low_water(s);
	bool held = false;
	int end = 0;

	if (total < 0 || flags & (MSG_OOB | MSG_ERRQUEUE)) {
		end = total < 0 ? (int)total : flags & MSG_OOB ? -EINVAL : -EAGAIN;
		goto out;
	}
	if (target > (size_t)total)
		target = (size_t)total;
	if (flags & MSG_PEEK && target > 1)
		end = wait_peek(s, target, flags, &held);
	while (!end && (done < total || !total)) {
		ssize_t got = total ? take(s, &to, (size_t)(total - done), flags) : 0;

		if (got > 0) {
			done += got;
			if ((size_t)done >= target || flags & MSG_PEEK)
				break;
			continue;
		}
		if (!total && unread(s))
			break;
		end = got < 0 ? (int)got : done ? -EAGAIN : rx_end(s);
		/* With bytes in hand the end is only looked at, not taken: the next call reports it. */
		if (done && is_readable(s) && !unread(s))
			break;
		if (end == -EAGAIN && unread(s)) {
			end = 0;
			continue;
		}
		if (end != -EAGAIN)
			break;
		if (flags & MSG_DONTWAIT || sock_nonblock(s)) {
			wait_skipped();
			break;
		}
		end = wait_rx(s, is_readable, &held);
	}
out:
	lock_give(&s->rx);
	if (held)
		sock_unhold(s);
	return done ? done : end;
}

/* ------------------------------------------------------------------ state */

bool stream_connected(struct sock *s)
{
	uint32_t flags = sock_peer_flags(s), mine = gz_load(&s->me->flags);

	if (!(flags & GZ_WORKER_CONNECTED) || flags & GZ_WORKER_DEAD)
		return false;
	/* Both ways are closed, and the peer has said that it knows; in a pair it knows at once. */
	return !(flags & GZ_WORKER_FIN && mine & GZ_APP_SHUT_WR && (s->attachment->pair || flags & GZ_WORKER_FIN_ACKED));
}

/* Threads of ours that sleep in this socket look again. */
void stream_wake_own(struct sock *s)
{
	if (!attachment_is_open(s->attachment))
		return;
	for (uint64_t queues = attachment_interested(s->attachment, s->n); queues; queues &= queues - 1)
		eventq_wake((uint32_t)__builtin_ctzll(queues));
}

int stream_shutdown(struct sock *s, int how)
{
	uint32_t set = 0;

	if (how < SHUT_RD || how > SHUT_RDWR)
		return -EINVAL;
	if (!stream_connected(s))
		return -ENOTCONN;
	if (how != SHUT_WR)
		set |= GZ_APP_SHUT_RD;
	if (how != SHUT_RD)
		set |= GZ_APP_SHUT_WR | (s->attachment->pair ? GZ_WORKER_FIN : 0); /* in a pair nobody else will say it */
	/* After a write in progress; the release in gz_or puts the flag behind its bytes. */
	lock_take(&s->tx);
	stream_writer_begin(s);
	gz_or(&s->me->flags, set);
	stream_writer_end(s);
	lock_give(&s->tx);
	gz_fence(); /* pairs with wait_for's between declaring its interest and looking at the flags again */
	sock_ring(s);
	stream_wake_own(s);
	epoll_activate(s);
	return 0;
}

/* The peer's TCP has all we sent; the other program of a pair, as much as a receive buffer would hold. */
static bool lingered(struct sock *s)
{
	uint32_t kept = s->attachment->pair ? GZ_BLOCK_SIZE(gz_load(&s->peer->in_block)) / 2 : 0;

	return sock_peer_flags(s) & GZ_WORKER_DEAD || (uint32_t)stream_unsent(s) <= kept;
}

/* The last descriptor was closed with SO_LINGER and a time: waits for what was sent to be acknowledged. */
static void linger(struct sock *s)
{
	if (!s->options.linger || s->options.linger_s <= 0 || s->born != gz_load(&shim.forks) || unread(s))
		return;
	(void)stream_shutdown(s, SHUT_WR);
	(void)wait_for(s, lingered, -1, s->options.linger_s * 1000000000ll);
}

static uint32_t level_of(struct sock *s, uint32_t want)
{
	uint32_t flags = sock_peer_flags(s), mine = gz_load(&s->me->flags), level = 0;

	if (__builtin_expect(flags & GZ_WORKER_DEAD, 0)) {
		level = EPOLLOUT | EPOLLWRNORM | EPOLLHUP | (sock_error(s) ? EPOLLERR : 0u);
		return s->told_refused ? level : level | EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	}
	if (!(flags & GZ_WORKER_CONNECTED))
		return 0;
	if (has_unread(s, low_water(s)))
		level |= EPOLLIN | EPOLLRDNORM;
	if (flags & GZ_WORKER_FIN || mine & GZ_APP_SHUT_RD)
		level |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	if ((flags & GZ_WORKER_FIN || mine & GZ_APP_SHUT_RD) && mine & GZ_APP_SHUT_WR)
		level |= EPOLLHUP;
	if (want & (EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND) && (mine & GZ_APP_SHUT_WR || stream_want_space(s)))
		level |= EPOLLOUT | EPOLLWRNORM;
	return level;
}

int stream_unread(struct sock *s)
{
	uint32_t n = unread(s);

	return n <= INT_MAX ? (int)n : 0;
}

int stream_unsent(struct sock *s)
{
	return (int)(gz_load(&s->me->out_head) - gz_load_acquire(&s->peer->in_tail));
}

static uint32_t received(struct sock *s)
{
	return gz_load_acquire(&s->peer->out_head); /* pairs with the peer's publish */
}

static void interest(struct sock *s, uint32_t queue, bool on)
{
	if (!attachment_is_open(s->attachment))
		return;
	if (on)
		attachment_interest(s->attachment, s->n, queue);
	else
		attachment_no_interest(s->attachment, s->n, queue);
}

static void option_changed(struct sock *s, enum option option)
{
	if (option != OPTION_SNDBUF)
		return;
	/* There may be room now for a thread that waits for it. */
	stream_wake_own(s);
	epoll_activate(s);
}

static void let_go(struct sock *s)
{
	attachment_let_go(s->attachment, s->n);
	attachment_freed(s->attachment);
}

static uint32_t since(struct sock *s)
{
	return gz_load(&s->peer->aux[GZ_AUX_READY]);
}

const struct sock_ops stream_ops = {
	.level = level_of,
	.received = received,
	.since = since,
	.interest = interest,
	.option_changed = option_changed,
	.linger = linger,
	.close = let_go,
};
