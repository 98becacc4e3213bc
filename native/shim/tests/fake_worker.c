/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A worker without a network, for tests of the shim: it speaks attach.h and abi.h as the real one does, and connects a
 * CONNECT to whatever listens on that port among its applications, moving bytes between the two FIFOs. It trusts its
 * applications, sleeps as a worker does (so wake-ups are tested), and fails on command by the port connected to:
 *
 *   port 1: nobody listens (ECONNREFUSED)      port 2: no answer ever
 *   port 3: ETIMEDOUT                          port 4: ECONNREFUSED, a moment later
 *   port 7: echoes
 *   port 9: the worker dies on the spot        others: a listener, or ECONNREFUSED
 *
 *   fake_worker GROUP_PAGE QUEUE_ID    runs until its parent closes its standard input
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/attach.h>
#include <gazelle/wake.h>

#define APPS 32 /* bits of sock.holders */
#define ARENA_BYTES (1ull << 30)
#define SOCKS 4096u /* of an arena; the real one has more */
#define START_ORDER 14u
#define STOCK_LEVEL 32u
#define ACCEPT_SLOTS 512u

enum kind { FREE, LISTENER, STREAM };

struct arena;

struct sock {
	enum kind kind;
	struct arena *arena;
	uint32_t n;
	struct gz_sock *shared;
	struct sock *peer; /* the other end; NULL = gone, or none yet */
	bool echo;         /* its own peer */
	uint32_t holders;  /* bit a: apps[a] holds it */
	bool orphan;       /* nobody holds it, but it has bytes to deliver */
	uint16_t port;     /* LISTENER */
	uint32_t backlog, accept_head;
	struct gz_accept_queue *queue;
	uint32_t rx_base;
	uint32_t grow_seen;
};

struct arena {
	int fd;
	struct gz_arena *shared;
	uint32_t next_sock, next_page;
	struct sock sock[SOCKS];
};

struct app {
	int control; /* 0 = free */
	struct arena *arena;
	struct gz_channel *channel;
	int queue_fd[GZ_EVENT_QUEUES];
	uint32_t request_tail, stock_head;
	uint64_t rung;
};

static const struct gz_group_page *group;
static struct gz_worker_page *page;
static struct app apps[APPS];
static int listen_fd, page_fd;
static struct sock *refuse_later;
static uint32_t queue_id;

static void fail(const char *what)
{
	perror(what);
	_exit(1);
}

static void *map(int fd, size_t size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (p == MAP_FAILED)
		fail("mmap");
	return p;
}

static int memory(const char *name, size_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size))
		fail(name);
	return fd;
}

/* ------------------------------------------------------------------ sockets */

static uint32_t take_block(struct arena *arena, uint32_t order)
{
	uint32_t block = GZ_BLOCK(arena->next_page, order);

	arena->next_page += (1u << order) / GZ_ARENA_PAGE;
	if ((uint64_t)arena->next_page * GZ_ARENA_PAGE > ARENA_BYTES)
		fail("arena full");
	return block;
}

static uint8_t *block_at(struct arena *arena, uint32_t block)
{
	return (uint8_t *)arena->shared + GZ_BLOCK_OFFSET(block);
}

static uint32_t take_sock(struct arena *arena)
{
	if (arena->next_sock == SOCKS)
		fail("out of sockets");
	return arena->next_sock++;
}

static struct sock *open_sock(struct arena *arena, uint32_t n, enum kind kind)
{
	struct sock *s = &arena->sock[n];

	memset(s, 0, sizeof(*s));
	s->kind = kind;
	s->arena = arena;
	s->n = n;
	s->shared = &arena->shared->sock[n];
	return s;
}

static void set_flags(struct sock *s, uint32_t flags)
{
	gz_store_release(&s->shared->worker.flags, gz_load(&s->shared->worker.flags) | flags);
}

/* As app_notify of the real worker. */
static void notify(struct sock *s)
{
	gz_fence();
	for (int a = 0; a < APPS; a++) {
		struct app *app = &apps[a];

		if (!app->control || app->arena != s->arena || !app->channel || !(s->holders & 1u << a))
			continue;
		uint64_t queues = gz_load(&app->channel->interest[s->n]);
		app->rung |= queues;
		for (; queues; queues &= queues - 1)
			gz_bell_ring(&app->channel->to_app[__builtin_ctzll(queues)], s->n);
	}
}

static void wake(struct app *app)
{
	gz_fence();
	for (uint64_t queues = app->rung; queues; queues &= queues - 1) {
		uint32_t k = (uint32_t)__builtin_ctzll(queues);

		if (app->queue_fd[k] > 0 && gz_exchange(&app->channel->to_app[k].asleep, 0))
			(void)send(app->queue_fd[k], "", 1, GZ_WAKE_FLAGS);
	}
	app->rung = 0;
}

static void die(struct sock *s, int error)
{
	gz_store(&s->shared->worker.error, (uint32_t)error);
	set_flags(s, GZ_WORKER_OPEN | GZ_WORKER_DEAD);
	notify(s);
}

static void name_ends(struct sock *s, uint8_t last, uint16_t port, uint8_t peer_last, uint16_t peer_port)
{
	struct gz_name *name = &s->shared->name;

	name->local_addr[10] = name->local_addr[11] = name->peer_addr[10] = name->peer_addr[11] = 0xff;
	memcpy(name->local_addr + 12, &group->host_addr_be, 4);
	memcpy(name->peer_addr + 12, &group->host_addr_be, 4);
	name->local_addr[15] = last;
	name->peer_addr[15] = peer_last;
	name->local_port = port;
	name->peer_port = peer_port;
	name->family = AF_INET;
	name->type = SOCK_STREAM;
	name->mss = 1448;
}

static void open_fifos(struct sock *s)
{
	gz_store(&s->shared->worker.in_block, take_block(s->arena, START_ORDER));
	gz_store(&s->shared->worker.out_block, take_block(s->arena, START_ORDER));
}

static struct sock *find_listener(uint16_t port)
{
	for (int a = 0; a < APPS; a++) {
		struct arena *arena = apps[a].control ? apps[a].arena : NULL;

		for (uint32_t n = 1; arena && n < arena->next_sock; n++) {
			struct sock *s = &arena->sock[n];

			if (s->kind == LISTENER && s->port == port && s->accept_head - gz_load(&s->queue->tail) < s->backlog)
				return s;
		}
	}
	return NULL;
}

static void push_accept(struct sock *listener, struct sock *s)
{
	gz_store(&listener->queue->slot[listener->accept_head & (ACCEPT_SLOTS - 1)], s->n);
	gz_store_release(&listener->queue->head, ++listener->accept_head);
	notify(listener);
}

static void on_connect(struct sock *s, const struct gz_request *request)
{
	uint16_t port = request->peer_port, own = request->port ? request->port : (uint16_t)(20000 + s->n);
	struct sock *listener = find_listener(port);

	if (port == 9)
		_exit(9);
	set_flags(s, GZ_WORKER_OPEN);
	name_ends(s, ((const uint8_t *)&group->host_addr_be)[3], own, request->peer[15], port);
	if (port == 4)
		refuse_later = s;
	if (port == 2 || port == 4)
		return;
	if (port == 3 || (port != 7 && !listener)) {
		die(s, port == 3 ? ETIMEDOUT : ECONNREFUSED);
		return;
	}
	open_fifos(s);
	set_flags(s, GZ_WORKER_CONNECTED);
	if (port == 7) {
		s->echo = true;
		s->peer = s;
	} else {
		struct sock *other = open_sock(listener->arena, take_sock(listener->arena), STREAM);

		open_fifos(other);
		name_ends(other, request->peer[15], port, ((const uint8_t *)&group->host_addr_be)[3], own);
		other->peer = s;
		s->peer = other;
		set_flags(other, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
		push_accept(listener, other);
	}
	notify(s);
}

static void on_listen(struct sock *s, const struct gz_request *request)
{
	uint32_t block = take_block(s->arena, GZ_BLOCK_ORDER_MIN);

	s->port = request->port;
	s->backlog = request->arg < 1 ? 1 : request->arg > ACCEPT_SLOTS ? ACCEPT_SLOTS : request->arg;
	s->queue = (struct gz_accept_queue *)block_at(s->arena, block);
	s->queue->mask = ACCEPT_SLOTS - 1;
	gz_store(&s->shared->worker.aux[GZ_AUX_ACCEPT_BLOCK], block);
	set_flags(s, GZ_WORKER_OPEN | GZ_WORKER_LISTENING);
	notify(s);
}

static void forget(struct sock *s)
{
	if (s->peer && s->peer != s)
		s->peer->peer = NULL;
	s->peer = NULL;
	s->kind = FREE;
	gz_store_release(&s->shared->worker.flags, 0);
}

/* Bytes from s to its peer, as far as there is room; then what follows the last one. */
static void move(struct sock *s)
{
	struct sock *to = s->peer;
	struct gz_end *app = &s->shared->app, *worker = &s->shared->worker;

	if (s->kind != STREAM || !to)
		return;
	bool shut = gz_load_acquire(&app->flags) & GZ_APP_SHUT_WR;
	uint32_t head = gz_load_acquire(&app->out_head), tail = gz_load(&worker->in_tail);
	struct gz_end *out = &to->shared->worker;
	uint32_t in_size = GZ_BLOCK_SIZE(gz_load(&worker->in_block)), out_size = GZ_BLOCK_SIZE(gz_load(&out->out_block));
	uint32_t used = gz_load(&out->out_head) - gz_load_acquire(&to->shared->app.in_tail);
	uint32_t len = head - tail < out_size - used ? head - tail : out_size - used;

	if (len) {
		static uint8_t buf[1 << 20];

		gz_fifo_copy_out(block_at(s->arena, gz_load(&worker->in_block)), in_size, gz_load(&app->out_base), tail,
		                 buf, len);
		if (!used)
			gz_store(&out->out_base, to->rx_base = gz_load(&out->out_head));
		gz_fifo_copy_in(block_at(to->arena, gz_load(&out->out_block)), out_size, to->rx_base,
		                gz_load(&out->out_head), buf, len);
		gz_store_release(&out->out_head, gz_load(&out->out_head) + len);
		gz_store_release(&worker->in_tail, tail + len);
		notify(to);
		if (gz_load(&app->flags) & GZ_APP_WANT_SPACE)
			notify(s);
	}
	if (len < head - tail && !(gz_load(&out->flags) & GZ_WORKER_WANT_SPACE)) {
		set_flags(to, GZ_WORKER_WANT_SPACE);
		gz_fence();
		if (gz_load(&out->out_head) - gz_load_acquire(&to->shared->app.in_tail) < out_size) {
			move(s); /* room has come meanwhile */
			return;
		}
	} else if (len == head - tail) {
		gz_store(&out->flags, gz_load(&out->flags) & ~GZ_WORKER_WANT_SPACE);
	}
	if (shut && gz_load(&worker->in_tail) == gz_load(&app->out_head) && !(gz_load(&out->flags) & GZ_WORKER_FIN)) {
		set_flags(to, GZ_WORKER_FIN);
		notify(to);
		if (s->orphan)
			forget(s);
	}
	uint32_t serial = gz_load_acquire(&app->aux[GZ_AUX_GROW_SERIAL]);
	if (serial != s->grow_seen && gz_load(&worker->in_tail) == gz_load(&app->out_head)) {
		uint32_t order = 31u - (uint32_t)__builtin_clz(gz_load(&app->aux[GZ_AUX_GROW_SIZE]));

		gz_store(&worker->in_block, take_block(s->arena, order > GZ_BLOCK_ORDER_MAX ? GZ_BLOCK_ORDER_MAX : order));
		s->grow_seen = serial;
		gz_store_release(&worker->aux[GZ_AUX_GROW_SEEN], serial);
		notify(s);
	}
}

static void rung(struct sock *s)
{
	move(s);
	if (s->peer && s->peer != s)
		move(s->peer);
}

static void release(struct sock *s, int a)
{
	struct sock *peer = s->peer;

	if (s->kind == FREE || !(s->holders & 1u << a))
		return;
	s->holders &= ~(1u << a);
	if (s->holders)
		return;
	if (s->kind == LISTENER || !peer || peer == s) {
		forget(s);
		return;
	}
	bool unread = gz_load(&s->shared->worker.out_head) != gz_load(&s->shared->app.in_tail);
	if (unread || gz_load(&s->shared->app.flags) & GZ_APP_ABORT) {
		die(peer, ECONNRESET);
		forget(s);
		return;
	}
	gz_or(&s->shared->app.flags, GZ_APP_SHUT_WR);
	s->orphan = true;
	if (gz_load(&peer->shared->worker.flags) & GZ_WORKER_FIN)
		forget(s);
	else
		move(s);
}

/* ------------------------------------------------------------------ applications */

static void grant(struct app *app)
{
	struct gz_stock *stock = &app->channel->stock;

	while (app->stock_head - gz_load_acquire(&stock->tail) < STOCK_LEVEL) {
		gz_store(&stock->slot[app->stock_head % GZ_STOCK], take_sock(app->arena));
		gz_store_release(&stock->head, ++app->stock_head);
	}
}

static void serve(int a, const struct gz_request *request)
{
	struct arena *arena = apps[a].arena;
	struct sock *s = &arena->sock[request->sock];

	switch (request->op) {
	case GZ_REQUEST_LISTEN:
		s = open_sock(arena, request->sock, LISTENER);
		s->holders = 1u << a;
		on_listen(s, request);
		break;
	case GZ_REQUEST_CONNECT:
		s = open_sock(arena, request->sock, STREAM);
		s->holders = 1u << a;
		on_connect(s, request);
		break;
	case GZ_REQUEST_CLAIM:
		s->holders |= 1u << a;
		notify(s);
		rung(s);
		break;
	case GZ_REQUEST_RELEASE:
		release(s, a);
		break;
	default:
		break;
	}
}

static void on_bell(void *ctx, uint32_t n)
{
	struct app *app = ctx;
	int a = (int)(app - apps);

	if (n) {
		if (n < SOCKS)
			rung(&app->arena->sock[n]);
		return;
	}
	struct gz_request_ring *ring = &app->channel->requests;
	while (app->request_tail != gz_load_acquire(&ring->head)) {
		struct gz_request request = ring->slot[app->request_tail % GZ_REQUESTS];

		gz_store_release(&ring->tail, ++app->request_tail);
		serve(a, &request);
	}
	grant(app);
}

static void send_fds(int control, struct gz_message *message, const int *fds, int count)
{
	char buf[CMSG_SPACE(4 * sizeof(int))] = { 0 };
	struct iovec iov = { message, sizeof(*message) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	message->magic = GZ_ATTACH_MAGIC;
	message->abi_version = GZ_ABI_VERSION;
	if (count) {
		msg.msg_control = buf;
		msg.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, (size_t)count * sizeof(int));
	}
	if (sendmsg(control, &msg, MSG_NOSIGNAL) < 0)
		perror("sendmsg");
}

static struct app *new_app(int control)
{
	for (int a = 0; a < APPS; a++) {
		if (apps[a].control)
			continue;
		memset(&apps[a], 0, sizeof(apps[a]));
		apps[a].control = control;
		return &apps[a];
	}
	fail("too many applications");
	return NULL;
}

static void welcome(struct app *app)
{
	struct gz_message message = { .kind = GZ_MESSAGE_WELCOME,
		                      .number = queue_id,
		                      .arena_size = ARENA_BYTES,
		                      .channel_size = sizeof(struct gz_channel) };
	int fd = memory("channel", sizeof(struct gz_channel));

	app->channel = map(fd, sizeof(*app->channel), PROT_READ | PROT_WRITE);
	app->channel->magic = GZ_CHANNEL_MAGIC;
	app->channel->abi_version = GZ_ABI_VERSION;
	grant(app);
	int fds[] = { app->arena->fd, fd, page_fd };
	send_fds(app->control, &message, fds, 3);
	close(fd);
}

static struct arena *new_arena(void)
{
	struct arena *arena = calloc(1, sizeof(*arena));

	if (!arena)
		fail("calloc");
	arena->fd = memory("arena", ARENA_BYTES);
	arena->shared = map(arena->fd, ARENA_BYTES, PROT_READ | PROT_WRITE);
	arena->shared->magic = GZ_ARENA_MAGIC;
	arena->shared->abi_version = GZ_ABI_VERSION;
	arena->shared->socks = GZ_SOCKS_MAX;
	arena->next_sock = 1;
	arena->next_page = (sizeof(struct gz_arena) + GZ_ARENA_PAGE - 1) / GZ_ARENA_PAGE;
	return arena;
}

static void on_fork(struct app *parent, int fd)
{
	struct gz_message answer = { .kind = GZ_MESSAGE_FORKED };
	struct app *child = new_app(fd);

	child->arena = parent->arena;
	for (uint32_t n = 1; n < parent->arena->next_sock; n++)
		if (parent->arena->sock[n].holders & 1u << (parent - apps))
			parent->arena->sock[n].holders |= 1u << (child - apps);
	send_fds(parent->control, &answer, NULL, 0);
}

static void detach(struct app *app)
{
	if (app->channel)
		on_bell(app, 0); /* what it had still posted */
	for (uint32_t n = 1; app->arena && n < app->arena->next_sock; n++)
		release(&app->arena->sock[n], (int)(app - apps));
	close(app->control);
	for (uint32_t k = 0; k < GZ_EVENT_QUEUES; k++)
		if (app->queue_fd[k] > 0)
			close(app->queue_fd[k]);
	if (app->channel)
		munmap(app->channel, sizeof(*app->channel));
	app->channel = NULL;
	app->control = 0;
}

static void on_control(struct app *app)
{
	struct gz_message message;
	char buf[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &message, sizeof(message) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = buf, .msg_controllen = sizeof(buf) };
	int fd = -1;

	if (recvmsg(app->control, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != (ssize_t)sizeof(message)) {
		detach(app);
		return;
	}
	if (CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	switch (message.kind) {
	case GZ_MESSAGE_HELLO:
		app->arena = new_arena();
		welcome(app);
		break;
	case GZ_MESSAGE_CLAIM:
		welcome(app);
		break;
	case GZ_MESSAGE_FORK:
		on_fork(app, fd);
		break;
	case GZ_MESSAGE_EVENT_QUEUE:
		app->queue_fd[message.number] = fd;
		(void)send(fd, "", 1, GZ_WAKE_FLAGS);
		break;
	default:
		break;
	}
}

/* ------------------------------------------------------------------ the loop */

static bool pending(void)
{
	for (int a = 0; a < APPS; a++)
		if (apps[a].control && apps[a].channel && gz_bell_pending(&apps[a].channel->to_worker))
			return true;
	return false;
}

static void sleep_and_control(void)
{
	struct pollfd fds[APPS + 2];
	struct app *who[APPS + 2];
	int n = 2;

	fds[0] = (struct pollfd){ .fd = 0, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = listen_fd, .events = POLLIN };
	for (int a = 0; a < APPS; a++)
		if (apps[a].control) {
			who[n] = &apps[a];
			fds[n++] = (struct pollfd){ .fd = apps[a].control, .events = POLLIN };
		}
	gz_store(&page->asleep, 1);
	gz_fence();
	poll(fds, (nfds_t)n, pending() ? 0 : refuse_later ? 20 : 1000);
	gz_store(&page->asleep, 0);
	if (refuse_later && !pending()) {
		die(refuse_later, ECONNREFUSED);
		refuse_later = NULL;
	}
	if (fds[0].revents)
		_exit(0);
	for (int i = 2; i < n; i++)
		if (fds[i].revents)
			on_control(who[i]);
	if (fds[1].revents) {
		int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			new_app(fd);
	}
}

static void open_all(const char *path, const char *queue)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char page_path[160];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail(path);
	group = map(fd, sizeof(*group), PROT_READ);
	queue_id = (uint32_t)atoi(queue);
	snprintf(page_path, sizeof(page_path), "%.100s/worker.%u.page", group->run_dir, queue_id);
	page_fd = open(page_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (page_fd < 0 || ftruncate(page_fd, sizeof(*page)))
		fail(page_path);
	page = map(page_fd, sizeof(*page), PROT_READ | PROT_WRITE);
	page->magic = GZ_WORKER_MAGIC;
	gz_store(&page->asleep, 0);
	listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.80s/worker.%u.sock", group->run_dir, queue_id);
	unlink(addr.sun_path);
	if (bind(listen_fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(listen_fd, 64))
		fail(addr.sun_path);
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: fake_worker GROUP_PAGE QUEUE_ID\n");
		return 64;
	}
	signal(SIGPIPE, SIG_IGN);
	open_all(argv[1], argv[2]);
	if (write(1, "ready\n", 6) != 6)
		return 1;
	for (;;) {
		sleep_and_control();
		for (int a = 0; a < APPS; a++)
			if (apps[a].control && apps[a].channel)
				gz_bell_take(&apps[a].channel->to_worker, 64, on_bell, &apps[a]);
		for (int a = 0; a < APPS; a++)
			if (apps[a].control && apps[a].channel && apps[a].rung)
				wake(&apps[a]);
	}
}
