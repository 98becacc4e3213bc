/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <string.h>
#include <sys/socket.h>

#include "udp/dgram_entry.h"
#include "process/image.h"
#include "worker/link.h"
#include "stream/listen.h"
#include "core/shim.h"
#include "core/sock.h"

void image_of(struct sock *s, struct image_sock *image)
{
	image->kind = sock_kind(s);
	image->family = s->family;
	image->nonblock = gz_load(&s->nonblock);
	image->template = s->template;
	image->datagram = s->datagram;
	image->bound = s->bound;
	image->local = s->local;
	image->name = s->name;
	image->options = s->options;
	if (image->kind == KIND_STREAM) {
		image->slot = s->link->slot;
		image->n = s->n;
		image->error_taken = gz_load(&s->error_taken);
		image->told_connected = s->told_connected;
		image->told_refused = s->told_refused;
	} else if (image->kind == KIND_LISTENER) {
		image->backlog = s->listener->backlog;
		image->both = s->listener->both;
		image->shut = s->listener->shut;
		image->v6only = s->listener->v6only;
	} else if (image->kind == KIND_DGRAM) {
		image->both = s->listener->both;
		image->v6only = s->listener->v6only;
		image->peer = dgram_of(s)->peer;
		image->shut_how = gz_load(&dgram_of(s)->shut);
	}
}

static void restore_entries(struct sock *s, const struct image_sock *image)
{
	if (image->kind == KIND_DGRAM)
		s->listener = dgram_inherit(s, image->both, &image->peer, image->shut_how & 3);
	else
		s->listener = listen_inherit(s, image->backlog, image->both, image->shut);
	if (s->listener)
		s->listener->v6only = image->v6only;
	for (uint32_t i = 0; s->listener && i < shim.workers; i++) {
		struct link *link = image->entry[i] ? gz_load(&shim.links[i]) : NULL;

		if (!link)
			continue;
		s->listener->entry[i].n = image->entry[i] % GZ_SOCKS_MAX;
		s->listener->entry[i].link = link;
		link_hold(link, s->listener->entry[i].n, s);
	}
}

static bool is_possible(const struct image_sock *image, const struct link *link)
{
	uint32_t numbers = link && link->pair ? GZ_PAIR_SOCKS : GZ_SOCKS_MAX;

	if (image->family != AF_INET && image->family != AF_INET6)
		return false;
	return image->kind == KIND_STREAM ? link && image->n && image->n < numbers : image->kind <= KIND_DGRAM;
}

struct sock *image_restore(const struct image_sock *image, struct link *link)
{
	struct sock *s = is_possible(image, link) ? sock_new(image->family) : NULL;
	uint8_t linger;

	if (!s)
		return NULL;
	gz_store(&s->refs, 0);
	gz_store(&s->nonblock, image->nonblock);
	s->template = image->template;
	s->datagram = image->datagram;
	s->bound = image->bound;
	s->local = image->local;
	s->name = image->name;
	s->options = image->options;
	memcpy(&linger, &image->options.linger, sizeof(linger));
	s->options.linger = linger;
	s->options.known &= (1ull << OPTIONS) - 1;
	if (image->kind == KIND_STREAM) {
		sock_attach(s, link, image->n);
		gz_store(&s->error_taken, image->error_taken);
		s->told_connected = image->told_connected;
		s->told_refused = image->told_refused;
		link_hold(link, s->n, s);
	} else if (image->kind == KIND_LISTENER || image->kind == KIND_DGRAM) {
		restore_entries(s, image);
	}
	if ((image->kind == KIND_LISTENER || image->kind == KIND_DGRAM) && !s->listener) {
		sock_free(s);
		return NULL;
	}
	gz_store_release(&s->kind, image->kind);
	return s;
}
