/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <string.h>
#include <sys/socket.h>

#include "udp/dgram_entry.h"
#include "process/snapshot.h"
#include "core/attachment.h"
#include "stream/listen.h"
#include "worker/listener.h"
#include "core/shim.h"
#include "core/sock.h"

void snapshot_take(struct sock *s, struct sock_snapshot *snapshot)
{
	snapshot->kind = sock_kind(s);
	snapshot->family = s->family;
	snapshot->nonblock = gz_load(&s->nonblock);
	snapshot->template = s->template;
	snapshot->datagram = s->datagram;
	snapshot->bound = s->bound;
	snapshot->local = s->local;
	snapshot->name = s->name;
	snapshot->options = s->options;
	if (snapshot->kind == KIND_STREAM) {
		snapshot->slot = s->attachment->slot;
		snapshot->n = s->n;
		snapshot->error_taken = gz_load(&s->error_taken);
		snapshot->told_connected = s->told_connected;
		snapshot->told_refused = s->told_refused;
	} else if (snapshot->kind == KIND_LISTENER) {
		snapshot->backlog = listener_of(s)->backlog;
		snapshot->both = s->entries->both;
		snapshot->shut = listener_of(s)->shut;
		snapshot->v6only = s->entries->v6only;
	} else if (snapshot->kind == KIND_DGRAM) {
		snapshot->both = s->entries->both;
		snapshot->v6only = s->entries->v6only;
		snapshot->peer = dgram_of(s)->peer;
		snapshot->shut_how = gz_load(&dgram_of(s)->shut);
	}
}

static void restore_entries(struct sock *s, const struct sock_snapshot *snapshot)
{
	if (snapshot->kind == KIND_DGRAM)
		(void)dgram_inherit(s, snapshot->both, &snapshot->peer, snapshot->shut_how & 3);
	else
		(void)listen_inherit(s, snapshot->backlog, snapshot->both, snapshot->shut);
	if (s->entries)
		s->entries->v6only = snapshot->v6only;
	for (uint32_t i = 0; s->entries && i < shim.workers; i++) {
		struct attachment *a = snapshot->entry[i] ? gz_load(&shim.attachments[i]) : NULL;

		if (!a)
			continue;
		s->entries->entry[i].n = snapshot->entry[i] % GZ_SOCKS_MAX;
		s->entries->entry[i].attachment = a;
		attachment_hold(a, s->entries->entry[i].n, s);
	}
}

static bool is_possible(const struct sock_snapshot *snapshot, const struct attachment *a)
{
	uint32_t numbers = a ? a->ops->numbers : GZ_SOCKS_MAX;

	if (snapshot->family != AF_INET && snapshot->family != AF_INET6)
		return false;
	return snapshot->kind == KIND_STREAM ? a && snapshot->n && snapshot->n < numbers : snapshot->kind <= KIND_DGRAM;
}

struct sock *snapshot_restore(const struct sock_snapshot *snapshot, struct attachment *a)
{
	struct sock *s = is_possible(snapshot, a) ? sock_new(snapshot->family) : NULL;
	uint8_t linger;

	if (!s)
		return NULL;
	gz_store(&s->refs, 0);
	gz_store(&s->nonblock, snapshot->nonblock);
	s->template = snapshot->template;
	s->datagram = snapshot->datagram;
	s->bound = snapshot->bound;
	s->local = snapshot->local;
	s->name = snapshot->name;
	s->options = snapshot->options;
	memcpy(&linger, &snapshot->options.linger, sizeof(linger));
	s->options.linger = linger;
	s->options.known &= (1ull << OPTIONS) - 1;
	if (snapshot->kind == KIND_STREAM) {
		sock_attach(s, a, snapshot->n);
		gz_store(&s->error_taken, snapshot->error_taken);
		s->told_connected = snapshot->told_connected;
		s->told_refused = snapshot->told_refused;
		attachment_hold(a, s->n, s);
	} else if (snapshot->kind == KIND_LISTENER || snapshot->kind == KIND_DGRAM) {
		restore_entries(s, snapshot);
	}
	if ((snapshot->kind == KIND_LISTENER || snapshot->kind == KIND_DGRAM) && !s->entries) {
		sock_free(s);
		return NULL;
	}
	gz_store_release(&s->kind, snapshot->kind);
	return s;
}
