/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>

#include <gazelle/address.h>

#include "udp/dgram.h"
#include "udp/dgram_control.h"
#include "udp/dgram_entry.h"
#include "udp/dgram_message.h"
#include "core/iov.h"
#include "core/real.h"
#include "core/route.h"
#include "core/shim.h"
#include "core/window.h"
#include "wait/wait.h"
#include "udp/dgram_options.h"

#define HEADERS 28u          /* IPv4 and UDP */
#define HEADERS6 48u         /* IPv6 and UDP */
#define STEAL_NS 10000000ull /* a process that holds the write lock this long has died in it */

/* ------------------------------------------------------------------ receiving */

/* The header of the next datagram of an entry. Bytes that wait there, 0 = none. */
static uint32_t peek(struct gz_sock *entry, struct attachment *a, struct gz_datagram *header, uint8_t **mem, uint32_t *tail)
{
	uint32_t waiting, block, size;

	*tail = gz_load(&entry->app.in_tail);
	waiting = gz_load_acquire(&entry->worker.out_head) - *tail; /* pairs with the worker's: the bytes are written */
	block = gz_load(&entry->worker.out_block);                  /* after the head: the block it is about */
	size = GZ_BLOCK_SIZE(block);
	*mem = window_block(a, block);
	if (!*mem || waiting < sizeof(*header) || waiting > size)
		return 0;
	gz_fifo_copy_out(*mem, size, gz_load(&entry->worker.out_base), *tail, header, sizeof(*header));
	return header->len <= GZ_DATAGRAM_MAX && GZ_DATAGRAM_SPACE(header->len) <= waiting ? waiting : 0;
}

/* One datagram of the stack, -EAGAIN if there is none. rx held. */
static ssize_t take(struct sock *s, struct msghdr *msg, size_t room, int flags)
{
	struct dgram *d = dgram_of(s);

	for (uint32_t i = 0; i < shim.workers; i++) {
		uint32_t slot = (d->turn + i) % shim.workers, tail, len;
		struct gz_datagram header;
		struct gz_sock *entry;
		struct attachment *a;
		struct iov to;
		uint8_t *mem;

		entry = dgram_entry_at(s, slot, &a);
		if (!entry)
			continue;
		do {
			if (!peek(entry, a, &header, &mem, &tail))
				break;
			len = header.len < room ? header.len : (uint32_t)room;
			(void)iov_begin(&to, msg->msg_iov, (int)msg->msg_iovlen);
			iov_copy_out(&to, mem, GZ_BLOCK_SIZE(gz_load(&entry->worker.out_block)),
			             gz_load(&entry->worker.out_base), tail + (uint32_t)sizeof(header), len);
			if (flags & MSG_PEEK)
				goto found;
			/* Another process may read from it, too: then what we copied is not ours. */
			if (gz_cas(&entry->app.in_tail, &tail, tail + GZ_DATAGRAM_SPACE(header.len))) {
				d->turn = slot + 1;
				goto found;
			}
		} while (true);
		continue;
found:
		msg->msg_flags = header.len > len ? MSG_TRUNC : 0;
		dgram_control_fill(s, msg, &header);
		return flags & MSG_TRUNC ? header.len : len;
	}
	return -EAGAIN;
}

int dgram_next(struct sock *s)
{
	for (uint32_t i = 0; i < shim.workers; i++) {
		struct gz_datagram header;
		struct gz_sock *entry;
		struct attachment *a;
		uint32_t tail;
		uint8_t *mem;

		entry = dgram_entry_at(s, (dgram_of(s)->turn + i) % shim.workers, &a);
		if (entry && peek(entry, a, &header, &mem, &tail))
			return (int)header.len;
	}
	return -1;
}

/* For wait_for: a read would not wait. */
static bool is_readable(struct sock *s)
{
	return gz_load(&dgram_of(s)->shut) & 1u << SHUT_RD || dgram_next(s) >= 0 || dgram_error(s, false);
}

/* The kernel's side, if it may receive datagrams. */
static int kernel_side(struct sock *s, int fd)
{
	return s->entries->both && !dgram_of(s)->peer.port && fd_sock(fd) == s ? fd : -1;
}

/* One look for a datagram: bytes, or -errno. rx held. */
static ssize_t recv_once(struct sock *s, int fd, struct msghdr *msg, size_t room, int flags)
{
	int err = dgram_error(s, true), kernel = kernel_side(s, fd);
	ssize_t got;

	if (err)
		return -err;
	got = take(s, msg, room, flags);
	if (got == -EAGAIN && kernel >= 0) {
		got = UNCANCELLED(recvmsg, kernel, msg, flags | MSG_DONTWAIT);
		got = got < 0 ? -errno : got;
	}
	return got;
}

ssize_t dgram_recv(struct sock *s, int fd, struct msghdr *msg, int flags)
{
	struct iov to;
	ssize_t room = iov_begin(&to, msg->msg_iov, (int)msg->msg_iovlen), got = room;

	if (room >= 0 && flags & MSG_ERRQUEUE)
		got = -EAGAIN; /* nobody could ask for one: see IP_RECVERR */
	lock_take(&s->rx);
	while (room >= 0 && !(flags & MSG_ERRQUEUE)) {
		got = recv_once(s, fd, msg, (size_t)room, flags);
		if (got != -EAGAIN || flags & MSG_DONTWAIT || gz_load(&s->nonblock))
			break;
		if (gz_load(&dgram_of(s)->shut) & 1u << SHUT_RD) {
			got = 0;
			break;
		}
		int64_t patience = options_patience(s->options.rcvtimeo_ns);
		lock_give(&s->rx);
		got = wait_for(s, is_readable, kernel_side(s, fd), patience);
		lock_take(&s->rx);
		if (got)
			break;
	}
	lock_give(&s->rx);
	sock_unhold(s);
	return got;
}

/* ------------------------------------------------------------------ sending */

/* The worker that sends: always the same while it lives, so that datagrams keep their order. */
static struct gz_sock *sender(struct sock *s, struct attachment **a)
{
	struct dgram *d = dgram_of(s);

	for (uint32_t i = 0; i < shim.workers; i++) {
		struct gz_sock *entry = dgram_entry_at(s, (d->tx_slot + i) % shim.workers, a);

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

	while (!gz_cas(&entry->app.aux[GZ_AUX_WRITE_LOCK], &zero, 1)) {
		zero = 0;
		sched_yield();
		if (now_ns() > until)
			return;
	}
}

/* How much may wait for the worker: SO_SNDBUF, as far as the block allows. */
static uint32_t send_limit(struct sock *s, struct gz_sock *entry)
{
	uint32_t size = GZ_BLOCK_SIZE(gz_load(&entry->worker.in_block)), sndbuf = dgram_of(s)->options.sndbuf;

	return sndbuf && sndbuf < size ? sndbuf : size;
}

bool dgram_has_room(struct sock *s)
{
	struct attachment *a;
	struct gz_sock *entry = sender(s, &a);
	uint32_t size, used;

	if (!entry || gz_load(&dgram_of(s)->shut) & 1u << SHUT_WR || dgram_error(s, false))
		return true;
	size = send_limit(s, entry);
	used = gz_load(&entry->app.out_head) - gz_load_acquire(&entry->worker.in_tail);
	if (used <= size / 2)
		return true;
	gz_or(&entry->app.flags, GZ_APP_WANT_SPACE);
	gz_fence(); /* pairs with the worker's release of in_tail and its look at the flag */
	return gz_load(&entry->app.out_head) - gz_load_acquire(&entry->worker.in_tail) <= size / 2;
}

/* Puts one datagram into the FIFO. 0, -EAGAIN or -errno. tx held. */
static int put(struct sock *s, struct gz_datagram *header, struct iov *from)
{
	struct attachment *a;
	struct gz_sock *entry = sender(s, &a);
	bool shared = s->born != gz_load(&shim.forks);
	uint32_t len = header->len;
	int err = -EAGAIN;

	if (!entry)
		return -ENETDOWN;
	uint32_t block = gz_load(&entry->worker.in_block), size = GZ_BLOCK_SIZE(block), room, base, head;
	uint8_t *mem = window_block(a, block);
	if (!mem)
		return -EPROTO;
	if (shared)
		write_lock(entry);
	room = gz_fifo_writable(&entry->app, &entry->worker, size);
	if (room == GZ_FIFO_BROKEN)
		err = -EPROTO;
	else if (room >= GZ_DATAGRAM_SPACE(len) && size - room < send_limit(s, entry)) {
		gz_and(&entry->app.flags, ~GZ_APP_WANT_SPACE);
		base = gz_fifo_rebase(&entry->app, &entry->worker);
		head = gz_load(&entry->app.out_head);
		gz_fifo_copy_in(mem, size, base, head, header, sizeof(*header));
		iov_copy_in(from, mem, size, base, head + (uint32_t)sizeof(*header), len);
		gz_fifo_publish(&entry->app, GZ_DATAGRAM_SPACE(len));
		err = 0;
	}
	if (shared)
		gz_store_release(&entry->app.aux[GZ_AUX_WRITE_LOCK], 0);
	if (!err)
		attachment_ring(a, s->entries->entry[a->slot].n);
	return err;
}

/* Where this message goes, and by which of the stack's addresses. 0 = by the stack, 1 = by the kernel, or -errno. Both locks held; a FRESH socket may become DGRAM. */
static int destination(struct sock *s, int fd, const struct msghdr *msg, struct endpoint *to, uint8_t *own)
{
	bool fresh = sock_kind(s) == KIND_FRESH;
	const struct sockaddr *sa = msg->msg_name;
	enum gz_kernel_reason why;

	*own = 0;

	/* IPv6 takes a name of no family for none. */
	if (!sa || (s->family == AF_INET6 && msg->msg_namelen >= sizeof(sa->sa_family) && sa->sa_family == AF_UNSPEC)) {
		if (fresh)
			return 1;
		*to = dgram_of(s)->peer;
		*own = dgram_of(s)->peer_own;
		return to->port ? 0 : -EDESTADDRREQ;
	}
	if (!dgram_address(s, sa, msg->msg_namelen, to) || !to->port) {
		if (fresh || s->entries->both)
			return 1; /* the kernel finds the right words */
		return s->family == AF_INET6 || msg->msg_namelen < sizeof(struct sockaddr_in) ||
		                       sa->sa_family == AF_INET || sa->sa_family == AF_UNSPEC
		               ? -EINVAL
		               : -EAFNOSUPPORT;
	}
	if (route_is_broadcast(to) && !fresh && !dgram_of(s)->options.broadcast)
		return -EACCES;
	if (!dgram_routed(s, fd, to, own, &why))
		return fresh || s->entries->both ? 1 : -ENETUNREACH;
	if (!fresh)
		return 0;
	return dgram_begin(s, fd) ? 1 : 0;
}

/* What may be wrong with a datagram for the stack, in the kernel's order; fills in its header. 0 or -errno. */
static int check(struct sock *s, const struct endpoint *to, const struct msghdr *msg, size_t total, int flags,
                 struct gz_datagram *header)
{
	struct dgram *d = dgram_of(s);
	bool four = gz_addr_is4(to->addr);
	int err = dgram_control_read(s, to, msg, header);

	if (err)
		return err;
	if (flags & MSG_OOB && four)
		return -EOPNOTSUPP;
	if (route_is_broadcast(to) && !d->options.broadcast)
		return -EACCES;
	if (total > (four ? GZ_DATAGRAM_MAX : GZ_DATAGRAM_MAX6) ||
	    ((four ? d->options.whole : d->options.whole6) && total + (four ? HEADERS : HEADERS6) > dgram_mtu(to)))
		return -EMSGSIZE;
	if (flags & MSG_MORE)
		return -EOPNOTSUPP;
	header->len = (uint16_t)total;
	header->port = to->port;
	memcpy(header->addr, to->addr, sizeof(header->addr));
	err = dgram_error(s, true);
	if (err)
		return -err;
	return gz_load(&d->shut) & 1u << SHUT_WR ? -EPIPE : 0;
}

ssize_t dgram_send(struct sock *s, int fd, const struct msghdr *msg, int flags)
{
	struct gz_datagram header = { 0 };
	struct endpoint to;
	struct iov from;
	ssize_t total = iov_begin(&from, msg->msg_iov, (int)msg->msg_iovlen);
	int err = total < 0 ? (int)total : total > 0xffff ? -EMSGSIZE : 0;

	if (!err && flags & MSG_OOB && s->family == AF_INET)
		err = -EOPNOTSUPP;

	lock_take(&s->rx);
	lock_take(&s->tx);
	if (!err)
		err = destination(s, fd, msg, &to, &header.own);
	lock_give(&s->rx);
	if (!err)
		err = check(s, &to, msg, (size_t)total, flags, &header);
	while (!err) {
		err = put(s, &header, &from);
		if (err != -EAGAIN || flags & MSG_DONTWAIT || gz_load(&s->nonblock))
			break;
		lock_give(&s->tx);
		err = wait_for(s, dgram_has_room, -1, options_patience(s->options.sndtimeo_ns));
		lock_take(&s->tx);
		if (!err)
			err = check(s, &to, msg, (size_t)total, flags, &header);
	}
	if (err == -EAGAIN && sock_kind(s) == KIND_DGRAM) {
		gz_add(&s->nospace, 1);
		(void)dgram_has_room(s);
	}
	lock_give(&s->tx);
	sock_unhold(s);
	if (err == 1) {
		total = REAL(sendmsg)(fd, msg, flags);
		return total < 0 ? -errno : total;
	}
	return err ? err : total;
}
