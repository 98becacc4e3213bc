/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * An ordinary user's program that takes from a worker what it can get. It speaks native/include/gazelle/control.h itself, so
 * that no library keeps it from anything.
 *   greedy orphans N PEER PORT   N times: attaches, connects, forges what it has written, touches 1 GiB it was not given (each thousandth time),
 *                                       and hangs up
 *   greedy programs N            attaches N times, or until it is refused, and stays
 *   greedy sockets N PEER PORT   makes N sockets, or as many as it gets, and stays
 *   greedy memory                touches its arena from end to end, and stays
 * Says one line when it has what it can get: "greedy: COUNT REASON".
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/bell.h>
#include <gazelle/channel.h>
#include <gazelle/control.h>
#include <gazelle/message.h>
#include <gazelle/worker_page.h>

#define PATIENCE_MS 10000
#define TOUCHED (1ull << 30)

struct attachment {
	int fd;
	uint64_t size;
	struct gz_arena *arena;
	struct gz_channel *channel;
	const struct gz_worker_page *page;
	struct gz_message answer;
};

static void say(int fd, uint32_t kind)
{
	struct gz_message m = { .magic = GZ_ATTACH_MAGIC, .abi_version = GZ_ABI_VERSION, .kind = kind };

	(void)send(fd, &m, sizeof(m), MSG_NOSIGNAL);
}

static bool hear(struct attachment *a, int fds[GZ_WELCOME_FDS])
{
	struct gz_envelope envelope;
	struct msghdr *msg = gz_envelope_open(&envelope, &a->answer, sizeof(a->answer));
	struct pollfd wait = { .fd = a->fd, .events = POLLIN };

	memset(&a->answer, 0, sizeof(a->answer));
	return poll(&wait, 1, PATIENCE_MS) == 1 && !gz_message_check(&a->answer, recvmsg(a->fd, msg, MSG_CMSG_CLOEXEC)) &&
	       a->answer.kind == GZ_MESSAGE_WELCOME && gz_fds_take(msg, fds, GZ_WELCOME_FDS) == GZ_WELCOME_FDS;
}

static bool attach(struct attachment *a, const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fds[GZ_WELCOME_FDS];

	memset(a, 0, sizeof(*a));
	strncpy(addr.sun_path, path, sizeof(addr.sun_path) - 1);
	a->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (connect(a->fd, (struct sockaddr *)&addr, sizeof(addr)))
		err(71, "%s", path);
	say(a->fd, GZ_MESSAGE_HELLO);
	if (!hear(a, fds)) {
		close(a->fd);
		return false;
	}
	a->size = a->answer.arena_size;
	a->arena = mmap(NULL, a->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fds[GZ_WELCOME_ARENA], 0);
	a->channel = mmap(NULL, sizeof(*a->channel), PROT_READ | PROT_WRITE, MAP_SHARED, fds[GZ_WELCOME_CHANNEL], 0);
	a->page = mmap(NULL, sizeof(*a->page), PROT_READ, MAP_SHARED, fds[GZ_WELCOME_PAGE], 0);
	if (a->arena == MAP_FAILED || a->channel == MAP_FAILED || a->page == MAP_FAILED)
		err(71, "mmap");
	for (int i = 0; i < (int)GZ_WELCOME_FDS; i++)
		close(fds[i]);
	return true;
}

static void detach(struct attachment *a)
{
	close(a->fd);
	munmap(a->arena, a->size);
	munmap(a->channel, sizeof(*a->channel));
	munmap((void *)a->page, sizeof(*a->page));
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

/* The worker has come to our requests, or has hung up, or both take too long: then this is false. */
static bool turn(struct attachment *a)
{
	struct pollfd wait = { .fd = a->fd, .events = POLLIN };

	if (gz_load(&a->page->asleep))
		say(a->fd, GZ_MESSAGE_WAKE);
	return poll(&wait, 1, 1) == 0;
}

static uint32_t from_stock(struct attachment *a)
{
	struct gz_stock *stock = &a->channel->stock;
	uint32_t tail = gz_load(&stock->tail);
	uint64_t until = now_ms() + PATIENCE_MS;

	while (tail == gz_load_acquire(&stock->head)) {
		gz_bell_ring(&a->channel->to_worker, 0);
		gz_fence();
		if (!turn(a) || now_ms() > until)
			return 0;
	}
	gz_store(&stock->tail, tail + 1);
	return gz_load(&stock->slot[tail % GZ_STOCK]);
}

static struct gz_sock *connect_to(struct attachment *a, const char *host, const char *port)
{
	struct gz_request request = { .op = GZ_REQUEST_CONNECT, .family = AF_INET, .type = SOCK_STREAM };
	struct gz_request_ring *ring = &a->channel->requests;
	uint32_t head = gz_load(&ring->head);
	uint64_t until = now_ms() + PATIENCE_MS;
	struct gz_sock *sock;

	request.sock = from_stock(a);
	if (!request.sock)
		return NULL;
	request.peer[10] = request.peer[11] = 0xff;
	inet_pton(AF_INET, host, request.peer + 12);
	request.peer_port = (uint16_t)atoi(port);
	ring->slot[head % GZ_REQUESTS] = request;
	gz_store_release(&ring->head, head + 1);
	gz_bell_ring(&a->channel->to_worker, 0);
	gz_fence();
	sock = &a->arena->sock[request.sock];
	while (!(gz_load_acquire(&sock->worker.flags) & (GZ_WORKER_CONNECTED | GZ_WORKER_DEAD)))
		if (!turn(a) || now_ms() > until)
			return NULL;
	return sock;
}

static uint32_t orphans(const char *path, uint32_t wanted, const char *host, const char *port)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < wanted; i++) {
		struct attachment a;
		struct gz_sock *sock;

		if (!attach(&a, path))
			return count;
		sock = connect_to(&a, host, port);
		if (sock && gz_load(&sock->worker.flags) & GZ_WORKER_CONNECTED) {
			count++;
			gz_store(&sock->app.out_head, 0x7fffffffu);
		}
		if (i % 1000 == 0)
			memset((char *)a.arena + a.size / 2, 1, TOUCHED);
		detach(&a);
	}
	return count;
}

static uint32_t programs(const char *path, uint32_t wanted, struct gz_message *why)
{
	for (uint32_t i = 0; i < wanted; i++) {
		struct attachment a;

		if (!attach(&a, path)) {
			*why = a.answer;
			return i;
		}
		munmap(a.arena, a.size);
	}
	return wanted;
}

static uint32_t sockets(const char *path, uint32_t wanted, const char *host, const char *port)
{
	uint32_t count = 0;
	struct attachment a;

	if (!attach(&a, path))
		return 0;
	while (count < wanted && connect_to(&a, host, port))
		count++;
	return count;
}

/* From end to end, until nobody shares it any more. In MiB. */
static uint32_t memory(const char *path)
{
	struct attachment a;
	uint64_t at = 0;

	if (!attach(&a, path))
		return 0;
	for (; at < a.size; at += 1u << 20) {
		struct pollfd wait = { .fd = a.fd, .events = POLLIN };

		if (at >= sizeof(struct gz_arena))
			memset((char *)a.arena + at, 1, 1u << 20);
		if (poll(&wait, 1, 0))
			break;
	}
	munmap(a.arena, a.size);
	return (uint32_t)(at >> 20);
}

int main(int argc, char **argv)
{
	const char *path = getenv("WORKER"), *mode = argc > 1 ? argv[1] : "";
	const char *host = argc > 4 ? argv[3] : "", *port = argc > 4 ? argv[4] : "";
	uint32_t count = 0, wanted = argc > 2 ? (uint32_t)atoi(argv[2]) : 0;
	struct gz_message why = { 0 };

	if (!path)
		errx(64, "$WORKER is not set");
	if (!strcmp(mode, "orphans"))
		count = orphans(path, wanted, host, port);
	else if (!strcmp(mode, "programs"))
		count = programs(path, wanted, &why);
	else if (!strcmp(mode, "sockets"))
		count = sockets(path, wanted, host, port);
	else if (!strcmp(mode, "memory"))
		count = memory(path);
	else
		errx(64, "usage: greedy orphans|programs|sockets|memory N PEER PORT");
	why.text[sizeof(why.text) - 1] = '\0';
	printf("greedy: %u %s\n", count, why.text);
	fflush(stdout);
	if (strcmp(mode, "orphans"))
		pause();
}
