/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "wait/epoll.h"
#include "wait/epoll_set.h"
#include "core/eventq.h"
#include "worker/program.h"
#include "core/fdtable.h"
#include "wait/poll_set.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"
#include "wait/wait.h"
#include "worker/entries.h"

#define FEW 32u
#define SET_QUEUES 32u /* of epoll sets; with more a sleep is short */

/* One descriptor of a call. */
struct polled {
	struct sock *s;   /* referenced; NULL: the kernel's alone */
	struct epoll *ep; /* an epoll set, referenced */
};

struct poll {
	struct pollfd *fds;    /* the program's */
	struct pollfd *kernel; /* the same, without what only the stack knows */
	struct polled *polled;
	nfds_t count;
	bool any_kernel, any_stack;
	uint32_t queues[SET_QUEUES]; /* of the epoll sets, while we sleep */
	uint32_t queue_count;
};

static bool concerns(int fd)
{
	uintptr_t word = fd_word(fd);

	if ((word & 3) == FD_SOCK)
		return word && sock_kind((struct sock *)word) != KIND_FRESH;
	/* A set without stack sockets may be given one while we sleep. */
	return (word & 3) == FD_EPOLL && shim_active();
}

bool poll_concerns(struct pollfd *fds, nfds_t count)
{
	if (!fds || count > FD_MAX)
		return false; /* the kernel has the right error */
	for (nfds_t i = 0; i < count; i++)
		if (concerns(fds[i].fd))
			return true;
	return false;
}

/* Level of a socket in poll's bits, which are epoll's. */
static short level_of(struct sock *s, short want)
{
	return (short)sock_ops_of(s)->level(s, (uint32_t)(unsigned short)want);
}

static void enter(struct poll *p)
{
	for (nfds_t i = 0; i < p->count; i++) {
		struct sock *s = concerns(p->fds[i].fd) ? sock_enter(p->fds[i].fd, false) : NULL;

		if (s && sock_kind(s) == KIND_FRESH) { /* it has taken the number just now */
			lock_give(&s->rx);
			s = NULL;
		}
		p->kernel[i] = p->fds[i];
		p->polled[i] = (struct polled){ 0 };
		if (s) {
			if (sock_kind(s) == KIND_STREAM)
				sock_ready(s);
			else if (sock_kind(s) == KIND_LISTENER)
				attachment_claim_all();
			sock_hold(s);
			lock_give(&s->rx);
			p->polled[i].s = s;
			if (sock_kind(s) == KIND_STREAM || (sock_kind(s) != KIND_FRESH && !s->entries->both))
				p->kernel[i].fd = -1;
			p->any_stack = true;
		} else if (p->fds[i].events & (POLLIN | POLLRDNORM)) {
			p->polled[i].ep = epoll_take(p->fds[i].fd);
			p->any_stack |= p->polled[i].ep && epoll_has_items(p->polled[i].ep);
		}
		p->any_kernel |= p->kernel[i].fd >= 0;
	}
}

static void leave(struct poll *p)
{
	for (nfds_t i = 0; i < p->count; i++) {
		if (p->polled[i].s)
			sock_unhold(p->polled[i].s);
		if (p->polled[i].ep)
			epoll_put(p->polled[i].ep);
	}
}

/* Fills in revents of the stack's, over those of the kernel in p->kernel. Returns how many descriptors are ready. */
static int look(struct poll *p)
{
	int ready = 0;

	for (nfds_t i = 0; i < p->count; i++) {
		struct pollfd *fd = &p->fds[i];

		fd->revents = p->kernel[i].fd >= 0 ? p->kernel[i].revents : 0;
		if (p->polled[i].s && fd_sock(fd->fd) != p->polled[i].s)
			fd->revents = REAL(fcntl)(fd->fd, F_GETFD) < 0 ? POLLNVAL : 0; /* another thread closed it */
		else if (p->polled[i].s)
			fd->revents |= level_of(p->polled[i].s, fd->events) & (fd->events | POLLERR | POLLHUP);
		else if (p->polled[i].ep && epoll_ready(p->polled[i].ep))
			fd->revents |= fd->events & (POLLIN | POLLRDNORM);
		ready += fd->revents != 0;
	}
	return ready;
}

static void look_kernel(struct poll *p)
{
	struct timespec at_once = { 0 };

	if (!p->any_kernel || UNCANCELLED(ppoll, p->kernel, p->count, &at_once, NULL, 0) <= 0)
		for (nfds_t i = 0; i < p->count; i++)
			p->kernel[i].revents = 0;
}

/* While we sleep, everything that concerns the stack rings this thread's queue. Sets of their own queues ring those. */
static void set_interest(struct poll *p, uint32_t queue, bool on)
{
	for (nfds_t i = 0; i < p->count; i++) {
		struct sock *s = p->polled[i].s;

		if (s)
			sock_ops_of(s)->interest(s, queue, on);
	}
}

/* Declares the queues of epoll sets among the descriptors asleep, and puts what wakes them into `extra`. */
static void declare_sets(struct poll *p, struct wait *w, struct pollfd *extra)
{
	p->queue_count = 0;
	w->deaf = w->queue == EVENTQ_SHARED && p->any_stack;
	for (nfds_t i = 0; i < p->count; i++) {
		uint32_t room = SET_QUEUES - p->queue_count, n;

		if (!p->polled[i].ep)
			continue;
		n = epoll_queues_of(p->polled[i].ep, p->queues + p->queue_count, room);
		w->deaf |= n > room;
		p->queue_count += n < room ? n : room;
	}
	for (uint32_t i = 0; i < p->queue_count; i++) {
		eventq_declare(p->queues[i]);
		w->deaf |= p->queues[i] == EVENTQ_SHARED && p->any_stack;
		extra[i] = (struct pollfd){ .fd = eventq_fd(p->queues[i]), .events = POLLIN };
	}
}

static void retract_sets(struct poll *p, const struct pollfd *extra)
{
	for (uint32_t i = 0; i < p->queue_count; i++) {
		if (extra[i].revents)
			eventq_drain(p->queues[i]);
		eventq_retract(p->queues[i]);
	}
}

static int sleep_in(struct poll *p, struct wait *w, struct pollfd *all, int *ready)
{
	struct pollfd *extra = all + p->count;
	int err = 0;

	set_interest(p, w->queue, true);
	declare_sets(p, w, extra);
	eventq_declare(w->queue);
	*ready = look(p);
	if (!*ready) {
		memcpy(all, p->kernel, p->count * sizeof(*all));
		err = wait_block(w, all, (uint32_t)p->count + p->queue_count);
		for (nfds_t i = 0; i < p->count; i++)
			p->kernel[i].revents = p->kernel[i].fd >= 0 ? all[i].revents : 0;
	}
	eventq_retract(w->queue);
	retract_sets(p, extra);
	set_interest(p, w->queue, false);
	if (!*ready)
		*ready = look(p);
	return err;
}

static int wait_all(struct poll *p, struct pollfd *all, int64_t timeout_ns, const sigset_t *sigmask)
{
	struct wait w;
	int ready, err = 0;

	look_kernel(p);
	ready = look(p);
	if (ready || timeout_ns == 0) {
		wait_skipped();
		return ready;
	}
	wait_begin(&w, wait_thread_spin(), eventq_mine(), timeout_ns, sigmask);
	while (!ready) {
		enum wait_next next = p->any_stack ? wait_next(&w) : WAIT_SLEEP;

		if (next == WAIT_SLEEP) {
			err = sleep_in(p, &w, all, &ready);
			if ((err && !ready) || (!ready && w.now >= w.deadline))
				break;
			continue;
		}
		if (next != WAIT_LOOK)
			look_kernel(p);
		ready = look(p);
		if (next == WAIT_TIMEOUT)
			break;
	}
	wait_end(&w, ready > 0);
	return ready ? ready : err;
}

/* The time is over: what another thread has closed while we waited is nothing any more, as the kernel's last look has it. */
static int closed_meanwhile(struct poll *p)
{
	int ready = 0;

	for (nfds_t i = 0; i < p->count; i++) {
		if (!p->polled[i].s || fd_sock(p->fds[i].fd) == p->polled[i].s || REAL(fcntl)(p->fds[i].fd, F_GETFD) >= 0)
			continue;
		p->fds[i].revents = POLLNVAL;
		ready++;
	}
	return ready;
}

int poll_for(struct pollfd *fds, nfds_t count, int64_t timeout_ns, const sigset_t *sigmask)
{
	struct pollfd few_kernel[FEW], few_all[FEW + SET_QUEUES], *all = few_all;
	struct polled few_polled[FEW];
	struct poll p = { .fds = fds, .kernel = few_kernel, .polled = few_polled, .count = count };
	void *room = NULL;
	int ready;

	if (count > FEW) {
		room = malloc(count * (2 * sizeof(*all) + sizeof(*p.polled)) + SET_QUEUES * sizeof(*all));
		if (!room)
			return -ENOMEM;
		all = room;
		p.kernel = all + count + SET_QUEUES;
		p.polled = (struct polled *)(p.kernel + count);
	}
	enter(&p);
	ready = wait_all(&p, all, timeout_ns, sigmask);
	if (!ready)
		ready = closed_meanwhile(&p);
	leave(&p);
	free(room);
	return ready;
}

/* ------------------------------------------------------------------ select */

#define WORD_BITS ((int)(8 * sizeof(unsigned long)))

/*
 * Sets are read as the kernel reads them: words of bits, as many as `count` says. Programs with more descriptors than
 * FD_SETSIZE bring larger ones.
 */
static unsigned long word_of(const fd_set *set, int count, int word)
{
	unsigned long bits = set ? ((const unsigned long *)set)[word] : 0;
	int rest = count - word * WORD_BITS;

	return rest < WORD_BITS ? bits & ((1ul << rest) - 1) : bits;
}

/* The descriptors of the three sets as poll has them, at most `room`. Returns how many there are. */
static nfds_t list(int count, const fd_set *read, const fd_set *write, const fd_set *except, struct pollfd *fds, nfds_t room)
{
	nfds_t n = 0;

	for (int word = 0; word * WORD_BITS < count; word++) {
		unsigned long in = word_of(read, count, word), out = word_of(write, count, word);
		unsigned long pri = word_of(except, count, word);

		for (unsigned long any = in | out | pri; any; any &= any - 1) {
			int bit = __builtin_ctzl(any);

			if (n++ >= room)
				continue;
			fds[n - 1] = (struct pollfd){ .fd = word * WORD_BITS + bit,
				                      .events = (short)((in >> bit & 1 ? POLLIN : 0) |
				                                        (out >> bit & 1 ? POLLOUT : 0) |
				                                        (pri >> bit & 1 ? POLLPRI : 0)) };
		}
	}
	return n;
}

bool select_concerns(int count, const fd_set *read, const fd_set *write, const fd_set *except)
{
	if (count > (int)FD_MAX)
		return false;
	for (int word = 0; word * WORD_BITS < count; word++) {
		unsigned long any =
			word_of(read, count, word) | word_of(write, count, word) | word_of(except, count, word);

		for (; any; any &= any - 1)
			if (concerns(word * WORD_BITS + __builtin_ctzl(any)))
				return true;
	}
	return false;
}

static void clear(fd_set *set, int count)
{
	if (set)
		memset(set, 0, (size_t)((count + WORD_BITS - 1) / WORD_BITS) * sizeof(unsigned long));
}

static void put(fd_set *set, int fd)
{
	((unsigned long *)set)[fd / WORD_BITS] |= 1ul << fd % WORD_BITS;
}

/* As the kernel maps one to the other. */
static int answer(const struct pollfd *fds, nfds_t count, fd_set *read, fd_set *write, fd_set *except)
{
	int bits = 0;

	for (nfds_t i = 0; i < count; i++) {
		short want = fds[i].events, got = fds[i].revents;

		if (want & POLLIN && got & (POLLIN | POLLRDNORM | POLLHUP | POLLERR)) {
			put(read, fds[i].fd);
			bits++;
		}
		if (want & POLLOUT && got & (POLLOUT | POLLWRNORM | POLLERR)) {
			put(write, fds[i].fd);
			bits++;
		}
		if (want & POLLPRI && got & POLLPRI) {
			put(except, fds[i].fd);
			bits++;
		}
	}
	return bits;
}

int select_for(int count, fd_set *read, fd_set *write, fd_set *except, int64_t timeout_ns, const sigset_t *sigmask)
{
	struct pollfd few[FEW], *fds = few;
	nfds_t n = list(count, read, write, except, few, FEW);
	int ready;

	if (n > FEW) {
		fds = malloc(n * sizeof(*fds));
		if (!fds)
			return -ENOMEM;
		(void)list(count, read, write, except, fds, n);
	}
	ready = poll_for(fds, n, timeout_ns, sigmask);
	for (nfds_t i = 0; i < n && ready >= 0; i++)
		if (fds[i].revents & POLLNVAL)
			ready = -EBADF;
	if (ready >= 0) {
		clear(read, count);
		clear(write, count);
		clear(except, count);
		ready = answer(fds, n, read, write, except);
	}
	if (fds != few)
		free(fds);
	return ready;
}
