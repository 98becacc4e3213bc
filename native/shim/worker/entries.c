/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "worker/entries.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "core/shim.h"
#include "core/sock.h"
#include "core/watch.h"
#include "worker/requests.h"

#define OPEN_PATIENCE_NS 1000000000ull

static struct sock *all; /* shim.lock */

void entries_describe(struct sock *s, struct gz_request *request)
{
	request->port = s->local.port;
	request->family = s->family;
	request->v6only = s->entries->v6only;
	memcpy(request->addr, s->local.addr, sizeof(request->addr));
}

bool entries_ask(struct sock *s, struct attachment *a, int fd, struct gz_request *request)
{
	struct entry *e = &s->entries->entry[a->slot];

	request->sock = request_number(a, s);
	if (!request->sock)
		return false;
	s->entries->ops->write_options(s, attachment_sock(a, request->sock));
	if (request_vouch(a, request->sock, fd) || request_post(a, request)) {
		attachment_let_go(a, request->sock);
		return false;
	}
	e->n = request->sock;
	e->queue = NULL;
	__atomic_store_n(&e->attachment, a, __ATOMIC_RELEASE);
	return true;
}

void entries_enter(struct sock *s)
{
	s->entries->next = all;
	all = s;
}

/* Waits until the worker has answered. 0, 1 (the worker has died) or -errno. */
static int await_entry(const struct entry *e, uint32_t open_flag, uint64_t until)
{
	struct gz_end *worker = &attachment_sock(e->attachment, e->n)->worker;

	for (uint32_t turns = 1; !gz_load(&e->attachment->dead); turns++) {
		uint32_t flags = gz_load_acquire(&worker->flags); /* pairs with the worker's release: the error is written */

		if (flags & GZ_WORKER_DEAD)
			return -(int)gz_load(&worker->error);
		if (flags & open_flag)
			return 0;
		sched_yield();
		if (turns % 64)
			continue;
		attachment_check_all();
		if (now_ns() > until)
			return -ETIMEDOUT;
	}
	return 1;
}

static int await_open(struct sock *s)
{
	uint64_t until = now_ns() + OPEN_PATIENCE_NS;
	int result = 1;

	for (uint32_t i = 0; i < shim.workers; i++) {
		const struct entry *e = &s->entries->entry[i];
		int got = e->attachment ? await_entry(e, s->entries->ops->open_flag, until) : 1;

		if (got < 0 || (!got && result > 0))
			result = got;
	}
	return result;
}

int entries_open(struct sock *s)
{
	shim_lock();
	WORKER_EACH(a, i)
	{
		s->entries->ops->open(s, a);
	}
	entries_enter(s);
	shim_unlock();
	return await_open(s);
}

static void close_entry(struct sock *s, struct entry *e)
{
	struct attachment *a = e->attachment;

	__atomic_store_n(&e->queue, NULL, __ATOMIC_RELEASE);
	__atomic_store_n(&e->attachment, NULL, __ATOMIC_RELEASE);
	if (!a)
		return;
	watch.unclaim(s, a, e->n); /* sets that have s must not take the next socket of that number for it */
	attachment_let_go(a, e->n);
}

void entries_close(struct sock *s)
{
	struct sock **p = &all;

	while (*p && *p != s)
		p = &(*p)->entries->next;
	if (*p)
		*p = s->entries->next;
	for (uint32_t i = 0; i < shim.workers; i++)
		close_entry(s, &s->entries->entry[i]);
}

void entries_claim(struct sock *s)
{
	WORKER_EACH(a, i)
	{
		const struct entry *e = &s->entries->entry[i];

		if (e->attachment)
			watch.claim(s, a, e->n);
	}
}

void entries_write_options(struct sock *s)
{
	shim_lock();
	for (uint32_t i = 0; i < shim.workers; i++) {
		const struct entry *e = &s->entries->entry[i];

		if (e->attachment)
			s->entries->ops->write_options(s, attachment_sock(e->attachment, e->n));
	}
	shim_unlock();
}

void entries_interest(struct sock *s, uint32_t queue, bool on)
{
	for (uint32_t i = 0; i < shim.workers; i++) {
		const struct entry *e = &s->entries->entry[i];
		struct attachment *a = __atomic_load_n(&e->attachment, __ATOMIC_ACQUIRE);

		if (!a)
			continue;
		if (on)
			attachment_interest(a, e->n, queue);
		else
			attachment_no_interest(a, e->n, queue);
	}
}

void entries_activate_listeners(void)
{
	for (struct sock *s = all; s; s = s->entries->next)
		if (sock_kind(s) == KIND_LISTENER)
			watch.activate(s);
}

void entries_lost(struct attachment *a)
{
	for (struct sock *s = all; s; s = s->entries->next)
		if (s->entries->entry[a->slot].attachment == a)
			close_entry(s, &s->entries->entry[a->slot]);
}

void entries_restore(struct attachment *a)
{
	for (struct sock *s = all; s; s = s->entries->next) {
		const struct entry *e = &s->entries->entry[a->slot];

		if (e->attachment)
			continue;
		s->entries->ops->open(s, a);
		if (e->attachment)
			watch.claim(s, a, e->n);
	}
}
