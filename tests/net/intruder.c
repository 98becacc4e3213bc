/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A program that wants what is another user's, and speaks to the workers without the library.
 *
 *   intruder RUN_DIR QUEUES tcp|udp ADDR PORT [PEER PEER_PORT]
 *     asks every worker for the port, showing nothing, and then all kinds of kernel sockets it can get. Says how often it was
 *     granted, and stays.
 *   intruder RUN_DIR QUEUES pair ADDR PORT PEER PEER_PORT
 *     connects to a program of this host, as if from PEER. Says what that answered.
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <poll.h>
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
#include <gazelle/fifo.h>
#include <gazelle/same_host.h>
#include <gazelle/wake.h>
#include <gazelle/worker_page.h>

#define ANSWER_MS 3000
#define LOOKS 4000 /* of half a millisecond */
#define FDS 8

struct worker {
	int control;
	struct gz_arena *arena;
	struct gz_channel *channel;
	const struct gz_worker_page *page;
};

enum disguise { NOTHING, THE_SAME, ELSEWHERE, NEARBY, ANY, UNBOUND, DISGUISES };

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void say(int control, struct gz_message message, int fd)
{
	struct gz_envelope envelope;
	const struct msghdr *msg = gz_envelope_message(&envelope, &message, &fd, fd >= 0);

	if (sendmsg(control, msg, MSG_NOSIGNAL) != (ssize_t)sizeof(message))
		fail("sendmsg");
}

/* One message within `ms`; false: none came. */
static bool hear(int control, struct gz_message *message, int fds[FDS], int *count, int ms)
{
	struct gz_envelope envelope;
	struct msghdr *msg = gz_envelope_open(&envelope, message, sizeof(*message));
	struct pollfd wait = { .fd = control, .events = POLLIN };

	*count = 0;
	if (poll(&wait, 1, ms) != 1 || gz_message_check(message, recvmsg(control, msg, MSG_DONTWAIT)))
		return false;
	*count = (int)gz_fds_take(msg, fds, FDS);
	return true;
}

static struct worker attach(const char *run_dir, int queue)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct gz_message message = { .kind = GZ_MESSAGE_HELLO };
	struct worker w;
	int fds[FDS], count;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.80s/worker.%d.sock", run_dir, queue);
	w.control = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	if (connect(w.control, (struct sockaddr *)&addr, sizeof(addr)))
		fail(addr.sun_path);
	say(w.control, message, -1);
	if (!hear(w.control, &message, fds, &count, ANSWER_MS) || count != GZ_WELCOME_FDS)
		fail("no welcome");
	w.arena = mmap(NULL, sizeof(*w.arena), PROT_READ | PROT_WRITE, MAP_SHARED, fds[GZ_WELCOME_ARENA], 0);
	w.channel = mmap(NULL, sizeof(*w.channel), PROT_READ | PROT_WRITE, MAP_SHARED, fds[GZ_WELCOME_CHANNEL], 0);
	w.page = mmap(NULL, sizeof(*w.page), PROT_READ, MAP_SHARED, fds[GZ_WELCOME_PAGE], 0);
	if (w.arena == MAP_FAILED || w.channel == MAP_FAILED || w.page == MAP_FAILED)
		fail("mmap");
	return w;
}

static void pause_briefly(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 500000 }, NULL);
}

static uint32_t from_stock(struct worker *w)
{
	struct gz_stock *stock = &w->channel->stock;
	uint32_t tail = gz_load(&stock->tail);

	for (int looks = 0; tail == gz_load_acquire(&stock->head) && looks < LOOKS; looks++)
		pause_briefly();
	gz_store(&stock->tail, tail + 1);
	return gz_load(&stock->slot[tail % GZ_STOCK]);
}

static void mapped(const char *text, uint8_t out[16])
{
	memset(out, 0, 10);
	out[10] = out[11] = 0xff;
	if (inet_pton(AF_INET, text, out + 12) != 1)
		fail(text);
}

/* A kernel socket that shall make us look like who has the port; -1: the kernel refuses it. */
static int disguised(enum disguise disguise, int type, const char *addr, uint16_t port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, type, 0), on = 1;

	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on));
	(void)inet_pton(AF_INET, disguise == NEARBY ? "127.0.0.1" : addr, &in.sin_addr);
	if (disguise == ANY)
		in.sin_addr.s_addr = htonl(INADDR_ANY);
	if (disguise == ELSEWHERE)
		in.sin_port = 0;
	if ((disguise != UNBOUND && bind(fd, (struct sockaddr *)&in, sizeof(in))) ||
	    (type == SOCK_STREAM && disguise != UNBOUND && listen(fd, 100))) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool is_granted(struct worker *w, struct gz_request request, int fd)
{
	struct gz_request_ring *ring = &w->channel->requests;
	uint32_t head = gz_load(&ring->head), flags = 0;
	const struct gz_end *end;

	request.sock = from_stock(w);
	end = &w->arena->sock[request.sock].worker;
	if (fd >= 0)
		say(w->control, (struct gz_message){ .kind = GZ_MESSAGE_VOUCH, .number = request.sock }, fd);
	ring->slot[head % GZ_REQUESTS] = request;
	gz_store_release(&ring->head, head + 1);
	gz_bell_ring(&w->channel->to_worker, 0);
	say(w->control, (struct gz_message){ .kind = GZ_MESSAGE_WAKE }, -1);
	for (int looks = 0; !flags && looks < LOOKS; looks++) {
		flags = gz_load_acquire(&end->flags) & (GZ_WORKER_LISTENING | GZ_WORKER_CONNECTED | GZ_WORKER_DEAD);
		pause_briefly();
	}
	return flags & (GZ_WORKER_LISTENING | GZ_WORKER_CONNECTED);
}

static void steal(char **argv, int argc)
{
	bool datagram = !strcmp(argv[3], "udp");
	struct gz_request request = { .op = datagram ? GZ_REQUEST_BIND : GZ_REQUEST_LISTEN,
		                      .port = (uint16_t)atoi(argv[5]),
		                      .arg = 1024,
		                      .family = AF_INET,
		                      .type = datagram ? SOCK_DGRAM : SOCK_STREAM };
	unsigned int granted = 0, asked = 0;

	if (argc > 7) {
		mapped(argv[6], request.peer);
		request.peer_port = (uint16_t)atoi(argv[7]);
	}
	for (int queue = 0; queue < atoi(argv[2]); queue++) {
		struct worker w = attach(argv[1], queue);

		for (enum disguise d = NOTHING; d < DISGUISES; d++)
			for (int any = 0; any < 2; any++) {
				int fd = d == NOTHING ? -1 : disguised(d, request.type, argv[4], request.port);

				mapped(any ? "0.0.0.0" : argv[4], request.addr);
				asked++;
				granted += is_granted(&w, request, fd);
				if (fd >= 0)
					close(fd);
			}
	}
	printf("granted %u of %u\n", granted, asked);
	fflush(stdout);
	pause();
}

static void write_name(struct gz_pair_sock *e, char **argv)
{
	struct gz_name *name = &e->view[1].name;

	mapped(argv[4], name->local_addr);
	name->local_port = (uint16_t)atoi(argv[5]);
	mapped(argv[6], name->peer_addr);
	name->peer_port = (uint16_t)atoi(argv[7]);
	name->family = AF_INET;
	name->type = SOCK_STREAM;
}

static void forge(char **argv)
{
	static const char greeting[] = "hello\n";
	struct worker w = attach(argv[1], 0);
	struct gz_message message = { .kind = GZ_MESSAGE_PAIR, .port = (uint16_t)atoi(argv[5]) }, heard;
	int fds[FDS], members[GZ_PAIR_MEMBERS], count, last = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	uint32_t head = 0;

	mapped(argv[4], message.addr);
	say(w.control, message, fd);
	if (!hear(w.control, &message, fds, &count, ANSWER_MS) || message.status) {
		printf("not introduced\n");
		return;
	}
	members[0] = fds[GZ_PAIRED_SOCKET];
	struct gz_pair *pair =
		mmap(NULL, GZ_PAIR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fds[GZ_PAIRED_MEMORY], 0);
	if (pair == MAP_FAILED)
		fail("mmap");
	for (int m = 0; m < message.more_members && hear(w.control, &heard, fds, &count, ANSWER_MS) && count; m++)
		members[last++] = fds[0];
	struct gz_pair_sock *e = &pair->sock[1];
	for (uint64_t side = 0; side < 2; side++) {
		uint64_t at = GZ_PAIR_HEADER + (2 + side) * GZ_PAIR_BLOCK;

		gz_store(&e->end[side].out_block, GZ_BLOCK(at / GZ_ARENA_PAGE, __builtin_ctz(GZ_PAIR_BLOCK)));
		gz_store(&e->end[!side].in_block, gz_load(&e->end[side].out_block));
	}
	write_name(e, argv);
	memcpy((char *)pair + GZ_PAIR_HEADER + 2ull * GZ_PAIR_BLOCK, greeting, sizeof(greeting) - 1);
	gz_store(&e->end[0].out_head, (uint32_t)sizeof(greeting) - 1);
	gz_store(&e->end[0].aux[GZ_AUX_HOLDERS], 1);
	gz_or(&pair->side[0].holds[0][0], 1ull << 1);
	gz_store(&e->end[0].flags, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
	gz_store(&e->end[1].flags, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
	gz_store(&pair->side[1].accept[0], GZ_PAIR_SLOT(0, 1));
	gz_store_release(&pair->side[1].accept_head, 1);
	for (int looks = 0; !head && looks < LOOKS && !(gz_load(&e->end[1].flags) & GZ_WORKER_DEAD); looks++) {
		for (uint32_t k = 0; k < GZ_PAIR_QUEUES; k++)
			gz_bell_ring(&pair->side[1].to[k], looks & 1);
		for (int m = 0; m < last; m++)
			while (hear(members[m], &heard, fds, &count, 0))
				if (count)
					(void)send(fds[0], "", 1, GZ_WAKE_FLAGS);
		pause_briefly();
		head = gz_load_acquire(&e->end[1].out_head);
	}
	if (head)
		printf("answered %.*s\n", (int)head, (char *)pair + GZ_PAIR_HEADER + 3ull * GZ_PAIR_BLOCK);
	else
		printf("refused\n");
}

int main(int argc, char **argv)
{
	if (argc < 6)
		return 64;
	if (argc == 8 && !strcmp(argv[3], "pair"))
		forge(argv);
	else
		steal(argv, argc);
	return 0;
}
