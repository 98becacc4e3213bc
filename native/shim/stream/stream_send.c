/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Bytes from the program to a stream's FIFO (stream.h): sendmsg and sendfile in all forms. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "wait/epoll_set.h"
#include "core/iov.h"
#include "core/real.h"
#include "core/sock.h"
#include "core/window.h"
#include "stream/stream.h"
#include "wait/wait.h"
#include "samehost/pair.h"

/* Large writes become visible in pieces, so that the peer works on one while the next is copied. */
#define PIECE 16384u
/* How many looks a writer spends on the answer to its wish for a bigger FIFO before it goes by the usual way. */
#define GROW_LOOKS 2000
/* How long a process that shares the socket may be in the middle of a write before the others no longer believe in it. */
#define STEAL_NS 1000000000ull

static bool see_tx_block(struct sock *s)
{
	uint32_t block = gz_load_acquire(&s->peer->in_block);

	if (__builtin_expect(block == s->tx_block, 1))
		return true;
	s->tx_mem = window_block(s->attachment, block);
	s->tx_size = s->tx_mem ? GZ_BLOCK_SIZE(block) : 0;
	s->tx_block = s->tx_mem ? block : 0;
	return s->tx_mem != NULL;
}

/* A bigger block was asked for and the answer is not there: nothing may be written. No locks needed. */
static bool grow_pending(const struct sock *s)
{
	return gz_load(&s->me->flags) & GZ_APP_GROW &&
	       gz_load_acquire(&s->peer->aux[GZ_AUX_GROW_SEEN]) != gz_load(&s->me->aux[GZ_AUX_GROW_SERIAL]);
}

static void see_grow_answer(struct sock *s)
{
	uint32_t before = s->tx_size;

	gz_and(&s->me->flags, ~GZ_APP_GROW);
	if (see_tx_block(s) && s->tx_size <= before)
		s->grow_refused = s->tx_size;
}

/* How much of a FIFO of `size` may be full: SO_SNDBUF is a bound if the program has set it, as far as it is one. */
static uint32_t bound(const struct sock *s, uint32_t size)
{
	uint32_t sndbuf = s->options.known & 1ull << OPTION_SNDBUF ? (uint32_t)s->options.value[OPTION_SNDBUF] : 0;

	return sndbuf && sndbuf < size ? sndbuf : size;
}

/* Asks for a block four times as big, and gives the worker a moment to answer. True if there is room at once. */
static bool grow(struct sock *s)
{
	if (bound(s, 1u << GZ_BLOCK_ORDER_MAX) <= s->tx_size || s->grow_refused == s->tx_size)
		return false;
	gz_store(&s->me->aux[GZ_AUX_GROW_SIZE], s->tx_size * 4);
	/* Pairs with the worker's acquire of the serial: the size is written. */
	gz_store_release(&s->me->aux[GZ_AUX_GROW_SERIAL], gz_load(&s->me->aux[GZ_AUX_GROW_SERIAL]) + 1);
	gz_or(&s->me->flags, GZ_APP_GROW);
	sock_ring(s);
	for (int i = 1; grow_pending(s); i++) {
		if (i == GROW_LOOKS || gz_load(&s->attachment->dead))
			return false;
		if (i % 16)
			gz_pause();
		else
			sched_yield();
	}
	see_grow_answer(s);
	return true;
}

/* Room to write to now; 0 also while a bigger block is awaited. UINT32_MAX: the peer's indices cannot be. */
static uint32_t room(struct sock *s)
{
	uint32_t space, kept;

	if (__builtin_expect(gz_load(&s->me->flags) & GZ_APP_GROW, 0)) {
		if (grow_pending(s))
			return 0;
		see_grow_answer(s);
	}
	if (!see_tx_block(s))
		return UINT32_MAX;
	space = gz_fifo_writable(s->me, s->peer, s->tx_size);
	kept = s->tx_size - bound(s, s->tx_size);
	if (__builtin_expect(!kept || space == UINT32_MAX, 1))
		return space;
	return space > kept ? space - kept : 0;
}

/* The answer to a request that the worker times (enum gz_stage). */
static void stamp_write(struct sock *s)
{
	gz_store(&s->trace_open, false);
	gz_store(&s->me->aux[GZ_AUX_WRITE_NS], (uint32_t)now_ns());
	gz_store_release(&s->me->aux[GZ_AUX_TRACED], s->traced); /* pairs with the worker's acquire: both stamps */
}

/* Copies `len` bytes that fit, in pieces the worker is told of one by one. */
static void put(struct sock *s, struct iov *from, uint32_t len)
{
	uint32_t base = gz_fifo_rebase(s->me, s->peer);

	if (__builtin_expect(gz_load(&s->trace_open), 0))
		stamp_write(s);
	while (len) {
		uint32_t piece = len < PIECE ? len : PIECE;

		iov_copy_in(from, s->tx_mem, s->tx_size, base, gz_load(&s->me->out_head), piece);
		gz_fifo_publish(s->me, piece);
		sock_ring(s);
		len -= piece;
	}
}

/*
 * Enough room for a writer that found none: half of what it may fill, as the kernel's sockets do it, so that it is not woken
 * for crumbs. The peer that wakes it knows the size of the FIFO alone, so below a smaller bound it is woken early and wishes again.
 */
static bool has_half(const struct sock *s)
{
	uint32_t size = bound(s, GZ_BLOCK_SIZE(gz_load(&s->peer->in_block)));

	/* The acquire pairs with the worker's release of in_tail. */
	return !grow_pending(s) && gz_load(&s->me->out_head) - gz_load_acquire(&s->peer->in_tail) <= size / 2;
}

/* Asks to be rung when there is room. True if there is by now. */
bool stream_want_space(struct sock *s)
{
	if (has_half(s))
		return true;
	gz_or(&s->me->flags, GZ_APP_WANT_SPACE);
	gz_fence(); /* pairs with the worker's release of in_tail and its look at the flag */
	return has_half(s);
}

/* For wait_for: a write would not wait. */
static bool is_writable(struct sock *s)
{
	uint32_t flags = sock_peer_flags(s);

	if (flags & GZ_WORKER_DEAD || gz_load(&s->me->flags) & GZ_APP_SHUT_WR)
		return true;
	return flags & GZ_WORKER_CONNECTED && stream_want_space(s);
}

/*
 * Why nothing can be sent any more; 0 = it can, -EAGAIN = not connected yet. A call that has sent `some` says how much, and leaves
 * the connection's error to the next call.
 */
static int tx_end(struct sock *s, bool some)
{
	uint32_t flags = sock_peer_flags(s);

	if (__builtin_expect(flags & GZ_WORKER_DEAD, 0)) {
		int error = some ? 0 : sock_take_error(s);

		return error ? -error : -EPIPE;
	}
	if (__builtin_expect(gz_load(&s->me->flags) & GZ_APP_SHUT_WR, 0))
		return -EPIPE;
	return flags & GZ_WORKER_CONNECTED ? 0 : -EAGAIN;
}

/* A fork has made others that may write as well. */
static bool is_shared(const struct sock *s)
{
	return s->born != gz_load(&shim.forks);
}

/*
 * Between processes that share the socket after a fork: one writes at a time, and for no longer than it takes to copy. One
 * that dies while it does must not stop the others: they go on when it is gone, or at the latest after STEAL_NS.
 */
void stream_writer_begin(struct sock *s)
{
	_Atomic uint32_t *writer = &s->me->aux[GZ_AUX_WRITER];
	uint32_t holder = 0, mine;
	uint64_t until = 0;

	if (__builtin_expect(!is_shared(s), 1))
		return;
	mine = (uint32_t)getpid();
	for (uint32_t looks = 1; !gz_cas(writer, &holder, mine); looks++) {
		if (!until)
			until = now_ns() + STEAL_NS;
		if (looks % 64 == 0 && (now_ns() > until || (kill((pid_t)holder, 0) && errno == ESRCH)))
			(void)gz_cas(writer, &holder, 0); /* and then we all try again */
		sched_yield();
		holder = 0;
	}
}

void stream_writer_end(struct sock *s)
{
	uint32_t mine;

	if (__builtin_expect(!is_shared(s), 1))
		return;
	mine = (uint32_t)getpid();
	(void)gz_cas(&s->me->aux[GZ_AUX_WRITER], &mine, 0); /* not if it was taken from us */
}

static int wait_tx(struct sock *s, bool *held)
{
	int err;

	if (!*held)
		sock_hold(s);
	*held = true;
	stream_writer_end(s);
	lock_give(&s->tx);
	err = wait_for(s, is_writable, -1, options_patience(s->options.sndtimeo_ns));
	lock_take(&s->tx);
	stream_writer_begin(s);
	return err;
}

/*
 * There is no room; `end` is -EAGAIN if the connection is not made yet. Gets a bigger FIFO or waits, if the socket and
 * `flags` let it. 0: look again; -EAGAIN, -EINTR: the call ends. *held: a reference was taken for it.
 */
static int await_room(struct sock *s, int end, int flags, bool *held)
{
	if (!end && grow(s))
		return 0;
	if (sock_nonblock(s) || flags & MSG_DONTWAIT) {
		gz_add(&s->nospace, 1);
		(void)stream_want_space(s);
		return -EAGAIN;
	}
	return wait_tx(s, held);
}

/* The other program of a pair has closed: what was written will not be read. */
static bool sent_in_vain(const struct sock *s)
{
	return __builtin_expect(s->attachment->pair != NULL, 0) && pair_nobody_reads(s);
}

ssize_t stream_send(struct sock *s, const struct iovec *iov, int count, int flags)
{
	struct iov from;
	ssize_t total = iov_begin(&from, iov, count), done = 0;
	bool broke = false, unwished = false, held = false;
	int end = 0;

	if (total < 0 || flags & (MSG_OOB | MSG_FASTOPEN)) {
		end = total < 0 ? (int)total : flags & MSG_FASTOPEN ? -EISCONN : -EOPNOTSUPP;
		total = 0;
	}
	stream_writer_begin(s);
	while (done < total || (!total && !end && !done)) {
		end = tx_end(s, done > 0);
		if (end && end != -EAGAIN)
			break;
		uint32_t space = end ? 0 : room(s);
		if (space == UINT32_MAX) {
			end = -EPROTO;
			break;
		}
		if (!total)
			break; /* nothing to send, but errors are told */
		if (space) {
			uint32_t len = (size_t)(total - done) < space ? (uint32_t)(total - done) : space;

			if (gz_load(&s->me->flags) & GZ_APP_WANT_SPACE && !is_shared(s)) {
				gz_and(&s->me->flags, ~GZ_APP_WANT_SPACE);
				unwished = !__libc_single_threaded;
			}
			put(s, &from, len);
			done += len;
			broke = sent_in_vain(s);
			if (broke)
				break; /* or it would wait for room that nobody makes */
			continue;
		}
		end = await_room(s, end, flags, &held);
		if (end)
			break;
	}
	stream_writer_end(s);
	if (broke)
		gz_store(&s->broken, true); /* as by the reset that would come back for what was sent in vain */
	/* It may have been another thread's wish that was taken back: if there is room it hears so from us, else the wish stands. */
	if (unwished)
		unwished = stream_want_space(s);
	if (broke || unwished) {
		if (!held)
			sock_hold(s);
		held = true;
	}
	lock_give(&s->tx);
	if (unwished) {
		gz_fence(); /* pairs with wait_for's between declaring its interest and looking again */
		stream_wake_own(s);
	}
	if (broke || unwished)
		epoll_activate(s);
	if (held)
		sock_unhold(s);
	if (!done && end == -EPIPE && !(flags & MSG_NOSIGNAL))
		raise(SIGPIPE);
	return done || end > 0 ? done : end;
}

/* Reads the file straight into the FIFO: no byte is taken from it that has no place. */
ssize_t stream_sendfile(struct sock *s, int in_fd, off_t *offset, size_t len)
{
	ssize_t done = 0, got = 0;
	bool broke = false, held = false;
	int end = 0;

	stream_writer_begin(s);
	while ((size_t)done < len && !broke) {
		end = tx_end(s, done > 0);
		if (end && end != -EAGAIN)
			break;
		uint32_t space = end ? 0 : room(s);
		if (space == UINT32_MAX) {
			end = -EPROTO;
			break;
		}
		if (!space) {
			end = await_room(s, end, 0, &held);
			if (end)
				break;
			continue;
		}
		uint32_t base = gz_fifo_rebase(s->me, s->peer), head = gz_load(&s->me->out_head);
		uint32_t off = (head - base) & (s->tx_size - 1), run = s->tx_size - off < space ? s->tx_size - off : space;

		run = run < PIECE * 4 ? run : PIECE * 4;
		if (run > len - (size_t)done)
			run = (uint32_t)(len - (size_t)done);
		got = offset ? UNCANCELLED(pread64, in_fd, s->tx_mem + off, run, *offset)
		             : UNCANCELLED(read, in_fd, s->tx_mem + off, run);
		if (got <= 0) {
			end = got ? -errno : 0;
			break;
		}
		if (offset)
			*offset += got;
		gz_fifo_publish(s->me, (uint32_t)got);
		sock_ring(s);
		done += got;
		broke = sent_in_vain(s);
	}
	stream_writer_end(s);
	if (broke) {
		gz_store(&s->broken, true); /* as in stream_send */
		if (!held)
			sock_hold(s);
		held = true;
	}
	lock_give(&s->tx);
	if (broke)
		epoll_activate(s);
	if (held)
		sock_unhold(s);
	if (!done && end == -EPIPE)
		raise(SIGPIPE);
	return done ? done : end;
}
