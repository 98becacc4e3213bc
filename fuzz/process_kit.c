/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "process_kit.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <gazelle/message.h>

#include "input.h"
#include "worker_kit.h"

struct kernel_socket kernel_socket[KERNEL_SOCKETS];

int process_dial(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/worker.0.sock", worker.dir);
	MUST(!connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
	return fd;
}

bool process_say(int fd, const void *bytes, size_t len, const int *fds, uint32_t count)
{
	union {
		char buf[CMSG_SPACE(16 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	MUST(count <= 16);
	if (count) {
		msg.msg_control = control.buf;
		gz_fds_put(&msg, fds, count);
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

struct gz_message process_message(uint32_t kind)
{
	return (struct gz_message){ .magic = GZ_ATTACH_MAGIC, .abi_version = GZ_ABI_VERSION, .kind = kind };
}

static void unmap(struct process *p)
{
	if (p->arena)
		munmap(p->arena, p->arena_size);
	if (p->channel)
		munmap(p->channel, sizeof(*p->channel));
	p->arena = NULL;
	p->channel = NULL;
}

static void map(struct process *p, const struct gz_message *welcome, const int *fds)
{
	unmap(p);
	p->arena_size = welcome->arena_size;
	p->arena = mmap(NULL, p->arena_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fds[GZ_WELCOME_ARENA], 0);
	p->channel = mmap(NULL, sizeof(*p->channel), PROT_READ | PROT_WRITE, MAP_SHARED, fds[GZ_WELCOME_CHANNEL], 0);
	MUST(p->arena != MAP_FAILED && p->channel != MAP_FAILED);
}

static ssize_t receive(int fd, void *bytes, size_t len, int fds[GZ_WELCOME_FDS], uint32_t *count)
{
	struct gz_envelope envelope;
	struct msghdr *msg = gz_envelope_open(&envelope, bytes, len);
	ssize_t n = recvmsg(fd, msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	*count = n < 0 ? 0 : gz_fds_take(msg, fds, GZ_WELCOME_FDS);
	return n;
}

uint32_t process_take(int fd, int *fds, uint32_t most)
{
	int got[GZ_WELCOME_FDS];
	uint32_t count;
	char byte;

	MUST(receive(fd, &byte, 1, got, &count) == 1 && count <= most);
	memcpy(fds, got, count * sizeof(int));
	return count;
}

bool process_hear(struct process *p, struct gz_message *answer, int *end)
{
	int fds[GZ_WELCOME_FDS];
	uint32_t count, keep = 0;

	if (end)
		*end = -1;
	if (receive(p->fd, answer, sizeof(*answer), fds, &count) != (ssize_t)sizeof(*answer))
		return false;
	if (answer->kind == GZ_MESSAGE_WELCOME && count == GZ_WELCOME_FDS)
		map(p, answer, fds);
	else if (end && count)
		*end = fds[keep++];
	while (count > keep)
		close(fds[--count]);
	return true;
}

void process_attach(struct process *p)
{
	struct gz_message message = process_message(GZ_MESSAGE_HELLO), answer;

	*p = (struct process){ .fd = process_dial() };
	MUST(process_say(p->fd, &message, sizeof(message), NULL, 0));
	for (int i = 0; i < 100 && !process_hear(p, &answer, NULL); i++)
		worker_turn(0);
	MUST(p->channel);
}

uint32_t process_number(struct process *p)
{
	struct gz_stock *stock = &p->channel->stock;
	uint32_t tail = gz_load(&stock->tail);

	if (tail == gz_load_acquire(&stock->head))
		return 0;
	gz_store(&stock->tail, tail + 1);
	return gz_load(&stock->slot[tail % GZ_STOCK]);
}

void process_post(struct process *p, const struct gz_request *request)
{
	struct gz_request_ring *ring = &p->channel->requests;
	uint32_t head = gz_load(&ring->head);

	ring->slot[head % GZ_REQUESTS] = *request;
	gz_store_release(&ring->head, head + 1);
	gz_bell_ring(&p->channel->to_worker, 0);
}

void process_ring(struct process *p, uint32_t n)
{
	gz_bell_ring(&p->channel->to_worker, n);
}

void process_leave(struct process *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	unmap(p);
}

static void open_kernel_socket(int which)
{
	bool v6 = which == KERNEL_TCP6 || which == KERNEL_UDP6, tcp = which <= KERNEL_TCP6;
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr *addr = v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in;
	socklen_t len = v6 ? sizeof(in6) : sizeof(in);
	int fd = socket(v6 ? AF_INET6 : AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0), on = 1;

	MUST(fd >= 0);
	if (v6)
		MUST(!setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)));
	MUST(!bind(fd, addr, len));
	MUST(!getsockname(fd, addr, &len));
	MUST(!tcp || !listen(fd, 5));
	kernel_socket[which] = (struct kernel_socket){ .fd = fd, .port = ntohs(v6 ? in6.sin6_port : in.sin_port) };
}

void process_open_kernel_sockets(void)
{
	for (int which = 0; which < KERNEL_SOCKETS; which++)
		open_kernel_socket(which);
}

struct gz_request process_request_for(uint32_t n, int which)
{
	bool v6 = which == KERNEL_TCP6 || which == KERNEL_UDP6;
	struct gz_request request = { .op = which <= KERNEL_TCP6 ? GZ_REQUEST_LISTEN : GZ_REQUEST_BIND,
		                      .sock = n,
		                      .port = kernel_socket[which].port,
		                      .arg = 16,
		                      .family = v6 ? AF_INET6 : AF_INET,
		                      .type = which <= KERNEL_TCP6 ? SOCK_STREAM : SOCK_DGRAM,
		                      .v6only = v6 };

	if (!v6)
		request.addr[10] = request.addr[11] = 0xff;
	return request;
}

void process_own(struct process *p, uint32_t n, int which)
{
	struct gz_request request = process_request_for(n, which);
	struct gz_message message = process_message(GZ_MESSAGE_VOUCH);

	message.number = n;
	process_say(p->fd, &message, sizeof(message), &kernel_socket[which].fd, 1);
	process_post(p, &request);
}

/* Where a block is, or NULL: the worker names only what is in the arena. */
static uint8_t *block(struct process *p, uint32_t packed)
{
	MUST(!packed || GZ_BLOCK_OFFSET(packed) + GZ_BLOCK_SIZE(packed) <= p->arena_size);
	return packed ? (uint8_t *)p->arena + GZ_BLOCK_OFFSET(packed) : NULL;
}

uint32_t process_accept(struct process *p, uint32_t listener)
{
	struct gz_end *end = &p->arena->sock[listener % GZ_SOCKS_MAX].worker;
	struct gz_accept_queue *queue = (struct gz_accept_queue *)block(p, gz_load(&end->aux[GZ_AUX_ACCEPT_BLOCK]));
	struct gz_request claim = { .op = GZ_REQUEST_CLAIM };
	uint32_t tail;

	if (!queue || !(gz_load(&end->flags) & GZ_WORKER_LISTENING))
		return 0;
	tail = gz_load(&queue->tail);
	if (tail == gz_load_acquire(&queue->head))
		return 0;
	claim.sock = gz_load(&queue->slot[tail & queue->mask]);
	gz_store(&queue->tail, tail + 1);
	process_post(p, &claim);
	return claim.sock;
}

void process_read(struct process *p, uint32_t n, uint32_t most)
{
	struct gz_sock *s = &p->arena->sock[n % GZ_SOCKS_MAX];
	uint32_t size = GZ_BLOCK_SIZE(gz_load(&s->worker.out_block)), there = gz_fifo_readable(&s->app, &s->worker, size);

	MUST(there != GZ_FIFO_BROKEN);
	gz_fifo_consume(&s->app, there < most ? there : most);
	process_ring(p, n);
}

void process_write(struct process *p, uint32_t n, uint32_t most)
{
	struct gz_sock *s = &p->arena->sock[n % GZ_SOCKS_MAX];
	uint32_t packed = gz_load(&s->worker.in_block), size = GZ_BLOCK_SIZE(packed);
	uint32_t room = gz_fifo_writable(&s->app, &s->worker, size), base;
	static uint8_t bytes[1u << GZ_BLOCK_ORDER_MAX];

	MUST(room != GZ_FIFO_BROKEN);
	if (!packed)
		return;
	base = gz_fifo_rebase(&s->app, &s->worker);
	room = room < most ? room : most;
	gz_fifo_copy_in(block(p, packed), size, base, gz_load(&s->app.out_head), bytes, room);
	gz_fifo_publish(&s->app, room);
	process_ring(p, n);
}

void process_send_to(struct process *p, uint32_t n, const uint8_t addr[16], uint16_t port, uint32_t bytes)
{
	struct gz_sock *s = &p->arena->sock[n % GZ_SOCKS_MAX];
	uint32_t packed = gz_load(&s->worker.in_block), size = GZ_BLOCK_SIZE(packed), base;
	struct gz_datagram header = { .len = (uint16_t)bytes, .port = port };
	static const uint8_t data[GZ_DATAGRAM_MAX];

	memcpy(header.addr, addr, sizeof(header.addr));
	if (!packed || bytes > GZ_DATAGRAM_MAX6 || gz_fifo_writable(&s->app, &s->worker, size) < GZ_DATAGRAM_SPACE(bytes))
		return;
	base = gz_fifo_rebase(&s->app, &s->worker);
	gz_fifo_copy_in(block(p, packed), size, base, gz_load(&s->app.out_head), &header, sizeof(header));
	gz_fifo_copy_in(block(p, packed), size, base, gz_load(&s->app.out_head) + (uint32_t)sizeof(header), data, bytes);
	gz_fifo_publish(&s->app, GZ_DATAGRAM_SPACE(bytes));
	process_ring(p, n);
}
