/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "dgram.h"
#include "dgram_entry.h"
#include "dgram_message.h"
#include "iov.h"
#include "real.h"
#include "route.h"
#include "shim.h"
#include "wait.h"

#define STEAL_NS 10000000ull /* a process that holds the write lock this long has died in it */

/* ------------------------------------------------------------------ receiving */

/* The header of the next datagram of an entry. Bytes that wait there, 0 = none. */
static uint32_t peek(struct gz_sock *entry, struct link *link, struct gz_datagram *header, uint8_t **mem, uint32_t *tail)
{
	uint32_t block = gz_load(&entry->worker.out_block), size = GZ_BLOCK_SIZE(block), waiting;

	*tail = gz_load(&entry->app.in_tail);
	waiting = gz_load_acquire(&entry->worker.out_head) - *tail; /* pairs with the worker's: the bytes are written */
	*mem = link_block(link, block);
	if (!*mem || waiting < sizeof(*header) || waiting > size)
		return 0;
	gz_fifo_copy_out(*mem, size, gz_load(&entry->worker.out_base), *tail, header, sizeof(*header));
	return header->len <= GZ_DATAGRAM_MAX && GZ_DATAGRAM_SPACE(header->len) <= waiting ? waiting : 0;
}

static void fill_name(struct msghdr *msg, const struct gz_datagram *header)
{
	struct endpoint from = { .port = header->port };

	memcpy(from.addr, header->addr, sizeof(from.addr));
	if (msg->msg_name)
		endpoint_to(&from, AF_INET, msg->msg_name, &msg->msg_namelen);
	msg->msg_controllen = 0;
}

/* One datagram of the stack, -EAGAIN if there is none. rx held. */
static ssize_t take(struct sock *s, struct msghdr *msg, size_t room, int flags)
{
	struct dgram *d = dgram_of(s);

	for (uint32_t i = 0; i < shim.workers; i++) {
		uint32_t slot = (d->turn + i) % shim.workers, tail, len;
		struct gz_datagram header;
		struct gz_sock *entry;
		struct link *link;
		struct iov to;
		uint8_t *mem;

		entry = dgram_entry_at(s, slot, &link);
		if (!entry)
			continue;
		do {
			if (!peek(entry, link, &header, &mem, &tail))
				break;
			len = header.len < room ? header.len : (uint32_t)room;
			(void)iov_begin(&to, msg->msg_iov, (int)msg->msg_iovlen);
			iov_copy_out(&to, mem, GZ_BLOCK_SIZE(gz_load(&entry->worker.out_block)),
			             gz_load(&entry->worker.out_base), tail + (uint32_t)sizeof(header), len);
			fill_name(msg, &header);
			msg->msg_flags = header.len > len ? MSG_TRUNC : 0;
			if (flags & MSG_PEEK)
				return flags & MSG_TRUNC ? header.len : len;
			/* Another process may read from it, too: then what we copied is not ours. */
			if (gz_cas(&entry->app.in_tail, &tail, tail + GZ_DATAGRAM_SPACE(header.len))) {
				d->turn = slot + 1;
				return flags & MSG_TRUNC ? header.len : len;
			}
			if (msg->msg_name)
				msg->msg_namelen = sizeof(struct sockaddr_storage);
		} while (true);
	}
	return -EAGAIN;
}

int dgram_next(struct sock *s)
{
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct gz_datagram header;
		struct gz_sock *entry;
		struct link *link;
		uint32_t tail;
		uint8_t *mem;

		entry = dgram_entry_at(s, (dgram_of(s)->turn + i) % shim.workers, &link);
		if (entry && peek(entry, link, &header, &mem, &tail))
			return (int)header.len;
	}
	return -1;
}

bool dgram_readable(struct sock *s)
{
	return gz_load(&dgram_of(s)->shut) & 1u << SHUT_RD || dgram_next(s) >= 0;
}

ssize_t dgram_recv(struct sock *s, int fd, struct msghdr *msg, int flags)
{
	bool both = s->listener->both;
	socklen_t namelen = msg->msg_namelen;
	struct iov to;
	ssize_t room = iov_begin(&to, msg->msg_iov, (int)msg->msg_iovlen), got = room;

	if (flags & (MSG_OOB | MSG_ERRQUEUE))
		got = flags & MSG_OOB ? -EOPNOTSUPP : -EAGAIN;
	lock_take(&s->rx);
	while (got >= 0 || got == -EAGAIN) {
		if (room < 0 || flags & (MSG_OOB | MSG_ERRQUEUE))
			break;
		msg->msg_namelen = namelen;
		got = take(s, msg, (size_t)room, flags);
		if (got == -EAGAIN && both && fd_sock(fd) == s) {
			got = REAL(recvmsg)(fd, msg, flags | MSG_DONTWAIT);
			got = got < 0 ? -errno : got;
		}
		if (got == -EAGAIN && gz_load(&dgram_of(s)->shut) & 1u << SHUT_RD)
			got = 0;
		if (got != -EAGAIN || flags & MSG_DONTWAIT || gz_load(&s->nonblock))
			break;
		lock_give(&s->rx);
		int err = wait_for(s, dgram_readable, both ? fd : -1, s->options.rcvtimeo_ns ? s->options.rcvtimeo_ns : -1);
		lock_take(&s->rx);
		if (err) {
			got = err;
			break;
		}
	}
	lock_give(&s->rx);
	sock_put(s);
	return got;
}

/* ------------------------------------------------------------------ sending */

/* The worker that sends: always the same while it lives, so that datagrams keep their order. */
static struct gz_sock *sender(struct sock *s, struct link **link)
{
	struct dgram *d = dgram_of(s);

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct gz_sock *entry = dgram_entry_at(s, (d->tx_slot + i) % shim.workers, link);

		if (entry)
			return entry;
	}
	return NULL;
}

/* Between processes that share the FIFO after a fork. */
static void write_lock(struct gz_sock *entry)
{
	uint64_t until = now_ns() + STEAL_NS;
	uint32_t zero = 0;

	while (!gz_cas(&entry->app.aux[8], &zero, 1)) {
		zero = 0;
		sched_yield();
		if (now_ns() > until)
			return;
	}
}

bool dgram_has_room(struct sock *s)
{
	struct link *link;
	struct gz_sock *entry = sender(s, &link);
	uint32_t size, used;

	if (!entry || gz_load(&dgram_of(s)->shut) & 1u << SHUT_WR)
		return true;
	size = GZ_BLOCK_SIZE(gz_load(&entry->worker.in_block));
	used = gz_load(&entry->app.out_head) - gz_load_acquire(&entry->worker.in_tail);
	if (used <= size / 2)
		return true;
	gz_or(&entry->app.flags, GZ_APP_WANT_SPACE);
	gz_fence(); /* pairs with the worker's release of in_tail and its look at the flag */
	return gz_load(&entry->app.out_head) - gz_load_acquire(&entry->worker.in_tail) <= size / 2;
}

/* Puts one datagram into the FIFO. 0, -EAGAIN or -errno. tx held. */
static int put(struct sock *s, const struct endpoint *to, struct iov *from, uint32_t len)
{
	struct link *link;
	struct gz_sock *entry = sender(s, &link);
	bool shared = s->born != gz_load(&shim.forks);
	struct gz_datagram header = { .len = len, .port = to->port };
	int err = -EAGAIN;

	if (!entry)
		return -ENETDOWN;
	uint32_t block = gz_load(&entry->worker.in_block), size = GZ_BLOCK_SIZE(block), room, base, head;
	uint8_t *mem = link_block(link, block);
	if (!mem)
		return -EPROTO;
	if (shared)
		write_lock(entry);
	room = gz_fifo_writable(&entry->app, &entry->worker, size);
	if (room == GZ_FIFO_BROKEN)
		err = -EPROTO;
	else if (room >= GZ_DATAGRAM_SPACE(len)) {
		memcpy(header.addr, to->addr, sizeof(header.addr));
		gz_and(&entry->app.flags, ~GZ_APP_WANT_SPACE);
		base = gz_fifo_rebase(&entry->app, &entry->worker);
		head = gz_load(&entry->app.out_head);
		gz_fifo_copy_in(mem, size, base, head, &header, sizeof(header));
		iov_copy_in(from, mem, size, base, head + (uint32_t)sizeof(header), len);
		gz_fifo_publish(&entry->app, GZ_DATAGRAM_SPACE(len));
		err = 0;
	}
	if (shared)
		gz_store_release(&entry->app.aux[8], 0);
	if (!err)
		link_ring(link, s->listener->entry[link->slot].n);
	return err;
}

/* Where this message goes. 0 = by the stack, 1 = by the kernel, or -errno. Both locks held; a FRESH socket may become DGRAM. */
static int destination(struct sock *s, int fd, const struct msghdr *msg, struct endpoint *to)
{
	enum gz_kernel_reason why;
	bool fresh = sock_kind(s) == KIND_FRESH;

	if (!msg->msg_name) {
		if (fresh)
			return 1;
		*to = dgram_of(s)->peer;
		return to->port ? 0 : -EDESTADDRREQ;
	}
	if (!endpoint_from(msg->msg_name, msg->msg_namelen, to) ||
	    ((const struct sockaddr *)msg->msg_name)->sa_family != AF_INET)
		return fresh || s->listener->both ? 1 : -EINVAL;
	if (!to->port)
		return -EINVAL;
	if (route_connect(fresh ? NULL : &s->local, to, &why) == ROUTE_KERNEL)
		return fresh || s->listener->both ? 1 : -ENETUNREACH;
	if (!fresh)
		return 0;
	return dgram_begin(s, fd) ? 1 : 0;
}

ssize_t dgram_send(struct sock *s, int fd, const struct msghdr *msg, int flags)
{
	struct endpoint to;
	struct iov from;
	ssize_t total = iov_begin(&from, msg->msg_iov, (int)msg->msg_iovlen);
	int err = total < 0 ? (int)total : 0;

	lock_take(&s->rx);
	lock_take(&s->tx);
	if (!err)
		err = destination(s, fd, msg, &to);
	lock_give(&s->rx);
	if (!err && gz_load(&dgram_of(s)->shut) & 1u << SHUT_WR)
		err = -EPIPE;
	if (!err && flags & MSG_OOB)
		err = -EOPNOTSUPP;
	if (!err && total > (ssize_t)GZ_DATAGRAM_MAX)
		err = -EMSGSIZE;
	while (!err) {
		err = put(s, &to, &from, (uint32_t)total);
		if (err != -EAGAIN || flags & MSG_DONTWAIT || gz_load(&s->nonblock))
			break;
		lock_give(&s->tx);
		err = wait_for(s, dgram_has_room, -1, s->options.sndtimeo_ns ? s->options.sndtimeo_ns : -1);
		lock_take(&s->tx);
	}
	if (err == -EAGAIN && sock_kind(s) == KIND_DGRAM) {
		gz_add(&s->nospace, 1);
		(void)dgram_has_room(s);
	}
	lock_give(&s->tx);
	sock_put(s);
	if (err == 1) {
		total = REAL(sendmsg)(fd, msg, flags);
		return total < 0 ? -errno : total;
	}
	return err ? err : total;
}
