/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "worker/attach.h"
#include "udp/dgram_aside.h"
#include "udp/dgram_entry.h"
#include "worker/requests.h"
#include "core/shim.h"

struct gz_sock *dgram_entry_at(struct sock *s, uint32_t i, struct attachment **a)
{
	struct entry *e = &s->entries->entry[i];

	*a = __atomic_load_n(&e->attachment, __ATOMIC_ACQUIRE);
	if (!*a || !(*a)->channel || gz_load(&(*a)->dead))
		return NULL;
	struct gz_sock *entry = attachment_sock(*a, e->n);
	/* Pairs with the worker's release: the blocks are named. */
	uint32_t flags = gz_load_acquire(&entry->worker.flags);
	return (flags & (GZ_WORKER_CONNECTED | GZ_WORKER_DEAD)) == GZ_WORKER_CONNECTED ? entry : NULL;
}

/* The request that makes an entry, and with another peer changes it. */
static void describe(struct sock *s, struct gz_request *request)
{
	struct dgram *d = dgram_of(s);

	*request = (struct gz_request){ .op = GZ_REQUEST_BIND, .type = SOCK_DGRAM, .peer_port = d->peer.port };
	entries_describe(s, request);
	memcpy(request->peer, d->peer.addr, sizeof(request->peer));
}

static void write_options(struct sock *s, struct gz_sock *entry)
{
	gz_store(&entry->options.rcvbuf, dgram_of(s)->options.rcvbuf);
}

/* At workers of either role, for any may receive a datagram to it. */
static void open_entry(struct sock *s, struct attachment *a)
{
	int fd = sock_fd(s);
	bool aside = fd >= 0 && dgram_is_aside(s, fd);
	struct gz_request request;

	if (!a->channel || fd < 0 || (aside && dgram_move_aside(s, fd, false)))
		return;
	describe(s, &request);
	if (entries_ask(s, a, fd, &request) && aside)
		request_await(a); /* it has seen the address then */
	if (aside)
		(void)dgram_move_aside(s, fd, true);
}

static const struct entries_ops ops = {
	.open_flag = GZ_WORKER_CONNECTED,
	.open = open_entry,
	.write_options = write_options,
};

void dgram_entries_begin(struct sock *s, struct dgram *d, bool both, bool v6only)
{
	d->entries = (struct entries){ .ops = &ops, .both = both, .v6only = v6only };
	s->entries = &d->entries;
}

struct entries *dgram_inherit(struct sock *s, bool both, const struct endpoint *peer, uint32_t shut)
{
	struct dgram *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	dgram_entries_begin(s, d, both, false);
	d->peer = *peer;
	gz_store(&d->shut, shut);
	entries_enter(s);
	return s->entries;
}

int dgram_entries_open(struct sock *s)
{
	int err;

	attachment_claim_all();
	err = entries_open(s);
	return err > 0 ? -ENETDOWN : err;
}

/* Once connect() has returned nobody else is heard: the worker has carried it out by then. */
static void repeat_bind(struct sock *s, struct attachment *a, uint32_t n)
{
	struct gz_request request;

	describe(s, &request);
	request.sock = n;
	if (request_post(a, &request))
		return;
	lock_take(&a->post);
	request_settle(a);
	lock_give(&a->post);
}

void dgram_entries_peer(struct sock *s)
{
	attachment_claim_all();
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct attachment *a;

		if (dgram_entry_at(s, i, &a))
			repeat_bind(s, a, s->entries->entry[i].n);
	}
}

void dgram_entries_options(struct sock *s)
{
	attachment_claim_all();
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct attachment *a;
		struct gz_sock *entry = dgram_entry_at(s, i, &a);

		if (!entry)
			continue;
		write_options(s, entry);
		gz_or(&entry->app.flags, GZ_APP_OPTIONS);
		attachment_ring(a, s->entries->entry[i].n);
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
	shim_lock();
	entries_close(s);
	shim_unlock();
	if (s->bound)                /* by the program, which may want the same port again */
		request_await_all(); /* until they close our kernel socket, nobody can bind its port */
}
