/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "worker/attach.h"
#include "udp/dgram.h"
#include "udp/dgram_entry.h"
#include "wait/epoll.h"
#include "worker/program.h"
#include "core/shim.h"

#define OPEN_PATIENCE_NS 1000000000ull

static struct sock *all; /* shim.lock */

struct gz_sock *dgram_entry_at(struct sock *s, uint32_t i, struct attachment **a)
{
	struct listen_entry *e = &s->listener->entry[i];

	*a = __atomic_load_n(&e->attachment, __ATOMIC_ACQUIRE);
	if (!*a || !(*a)->channel || gz_load(&(*a)->dead))
		return NULL;
	struct gz_sock *entry = attachment_sock(*a, e->n);
	/* Pairs with the worker's release: the blocks are named. */
	uint32_t flags = gz_load_acquire(&entry->worker.flags);
	return (flags & (GZ_WORKER_CONNECTED | GZ_WORKER_DEAD)) == GZ_WORKER_CONNECTED ? entry : NULL;
}

static int post_bind(struct sock *s, struct attachment *a, uint32_t n)
{
	struct dgram *d = dgram_of(s);
	struct gz_request request = {
		.op = GZ_REQUEST_BIND,
		.sock = n,
		.port = s->local.port,
		.peer_port = d->peer.port,
		.family = s->family,
		.type = SOCK_DGRAM,
		.v6only = s->listener->v6only,
	};

	memcpy(request.addr, s->local.addr, sizeof(request.addr));
	memcpy(request.peer, d->peer.addr, sizeof(request.peer));
	return attachment_post(a, &request);
}

static void write_options(struct sock *s, struct gz_sock *entry)
{
	gz_store(&entry->options.rcvbuf, dgram_of(s)->options.rcvbuf);
}

/* At workers of either role, for any may receive a datagram to it. shim.lock held. */
static void open_entry(struct sock *s, struct attachment *a)
{
	struct listen_entry *e = &s->listener->entry[a->slot];
	int fd = sock_fd(s);
	bool aside = fd >= 0 && dgram_is_aside(s, fd);
	uint32_t n;

	if (!a->channel || fd < 0 || (aside && dgram_move_aside(s, fd, false)))
		return;
	n = attachment_take_number(a, s);
	if (!n)
		goto out;
	write_options(s, attachment_sock(a, n));
	if (attachment_vouch(a, n, fd) || post_bind(s, a, n)) {
		attachment_let_go(a, n);
		goto out;
	}
	e->n = n;
	__atomic_store_n(&e->attachment, a, __ATOMIC_RELEASE);
	if (aside)
		attachment_await(a); /* it has seen the address then */
out:
	if (aside)
		(void)dgram_move_aside(s, fd, true);
}

/* Waits until the workers have answered. 0, or an error of one of them; -ENETDOWN: there is none. */
static int await_open(struct sock *s)
{
	uint64_t until = now_ns() + OPEN_PATIENCE_NS;
	int err = -ENETDOWN;

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct listen_entry *e = &s->listener->entry[i];

		for (uint32_t turns = 1; e->attachment && !gz_load(&e->attachment->dead); turns++) {
			struct gz_end *worker = &attachment_sock(e->attachment, e->n)->worker;
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

static void close_entry(struct sock *s, struct listen_entry *e)
{
	struct attachment *a = e->attachment;

	__atomic_store_n(&e->attachment, NULL, __ATOMIC_RELEASE);
	if (!a)
		return;
	epoll_unclaim(s, a, e->n); /* sets that have s must not take the next socket of that number for it */
	attachment_let_go(a, e->n);
}

struct listener *dgram_inherit(struct sock *s, bool both, const struct endpoint *peer, uint32_t shut)
{
	struct dgram *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->entries.both = both;
	d->peer = *peer;
	gz_store(&d->shut, shut);
	d->next = all;
	all = s;
	return &d->entries;
}

int dgram_entries_open(struct sock *s)
{
	program_claim_all();
	shim_lock();
	WORKER_EACH(a, i)
	{
		open_entry(s, a);
	}
	dgram_of(s)->next = all;
	all = s;
	shim_unlock();
	return await_open(s);
}

/* Once connect() has returned nobody else is heard: the worker has carried it out by then. */
static void repeat_bind(struct sock *s, struct attachment *a, uint32_t n)
{
	if (post_bind(s, a, n))
		return;
	lock_take(&a->post);
	attachment_settle(a);
	lock_give(&a->post);
}

void dgram_entries_peer(struct sock *s)
{
	program_claim_all();
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct attachment *a;

		if (dgram_entry_at(s, i, &a))
			repeat_bind(s, a, s->listener->entry[i].n);
	}
}

void dgram_entries_options(struct sock *s)
{
	program_claim_all();
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct attachment *a;
		struct gz_sock *entry = dgram_entry_at(s, i, &a);

		if (!entry)
			continue;
		write_options(s, entry);
		gz_or(&entry->app.flags, GZ_APP_OPTIONS);
		attachment_ring(a, s->listener->entry[i].n);
	}
}

int dgram_error(struct sock *s, bool take)
{
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct attachment *a;
		struct gz_sock *entry = dgram_entry_at(s, i, &a);
		uint32_t told, count;

		if (!entry)
			continue;
		told = gz_load(&entry->app.aux[GZ_AUX_ERRORS]);
		count = gz_load_acquire(&entry->worker.aux[GZ_AUX_ERRORS]); /* pairs with the worker's: the error is there */
		if (count == told)
			continue;
		/* Of several threads or processes one reports it. */
		if (!take || gz_cas(&entry->app.aux[GZ_AUX_ERRORS], &told, count))
			return (int)gz_load(&entry->worker.error) & 4095;
	}
	return 0;
}

void dgram_entries_close(struct sock *s)
{
	struct sock **p = &all;

	shim_lock();
	while (*p && *p != s)
		p = &dgram_of(*p)->next;
	if (*p)
		*p = dgram_of(s)->next;
	for (uint32_t i = 0; i < shim.workers; i++)
		close_entry(s, &s->listener->entry[i]);
	shim_unlock();
	if (s->bound)               /* by the program, which may want the same port again */
		attach_await_all(); /* until they close our kernel socket, nobody can bind its port */
}

void dgram_lost(struct attachment *a)
{
	for (struct sock *s = all; s; s = dgram_of(s)->next)
		if (s->listener->entry[a->slot].attachment == a)
			close_entry(s, &s->listener->entry[a->slot]);
}

void dgram_restore(struct attachment *a)
{
	for (struct sock *s = all; s; s = dgram_of(s)->next) {
		struct listen_entry *e = &s->listener->entry[a->slot];

		if (e->attachment)
			continue;
		open_entry(s, a);
		if (e->attachment)
			epoll_claim(s, a, e->n);
	}
}
