/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A worker without a network, for tests of the shim: it speaks control.h and the shared memory as the real one does, and connects a
 * CONNECT to whatever listens on that port among its applications, moving bytes between the two FIFOs. It trusts its
 * applications, sleeps as a worker does (so wake-ups are tested), and fails on command by the port connected to:
 *
 *   port 1: nobody listens (ECONNREFUSED)      port 2: no answer ever
 *   port 3: ETIMEDOUT                          port 4: ECONNREFUSED, a moment later
 *   port 7: echoes
 *   port 9: the worker dies on the spot        others: a listener, or ECONNREFUSED
 *
 * Datagrams go to the socket bound to that port, or
 *   port 1: an ICMP error comes back           port 2: they stay in the FIFO
 *   port 7: echoes
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
#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/bell.h>
#include <gazelle/channel.h>
#include <gazelle/control.h>
#include <gazelle/message.h>
#include <gazelle/wake.h>
#include <gazelle/worker_page.h>

#include "fake_worker.h"

struct fake fake;
static int listen_fd, page_fd;
static uint32_t queue_id, sleeps;

static void *map(int fd, size_t size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (p == MAP_FAILED)
		fake_fail("mmap");
	return p;
}

static int memory(const char *name, size_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)size) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
		fake_fail(name);
	return fd;
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

/* ------------------------------------------------------------------ applications */

static void grant(struct app *app)
{
	struct gz_stock *stock = &app->channel->stock;

	while (app->stock_head - gz_load_acquire(&stock->tail) < STOCK_LEVEL) {
		gz_store(&stock->slot[app->stock_head % GZ_STOCK], fake_take_sock(app->arena));
		gz_store_release(&stock->head, ++app->stock_head);
	}
}

static void serve(int a, const struct gz_request *request)
{
	struct arena *arena = fake.apps[a].arena;
	struct sock *s = &arena->sock[request->sock];

	switch (request->op) {
	case GZ_REQUEST_LISTEN:
		s = fake_open_sock(arena, request->sock, LISTENER);
		s->holders = 1u << a;
		fake_listen(s, request);
		break;
	case GZ_REQUEST_CONNECT:
		s = fake_open_sock(arena, request->sock, STREAM);
		s->holders = 1u << a;
		fake_connect(s, request);
		break;
	case GZ_REQUEST_BIND:
		if (s->kind != DGRAM)
			s = fake_open_sock(arena, request->sock, DGRAM);
		s->holders |= 1u << a;
		fake_bind(s, request);
		break;
	case GZ_REQUEST_CLAIM:
		s->holders |= 1u << a;
		fake_notify(s);
		fake_rung(s);
		break;
	case GZ_REQUEST_RELEASE:
		fake_release(s, a);
		break;
	default:
		break;
	}
}

static void on_control(struct app *app);

/* What was said before these requests were posted; of vouches, that they are let go of. Its end waits: we are in its memory. */
static void hear(struct app *app)
{
	char byte;

	while (app->control && !app->gone && recv(app->control, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1)
		on_control(app);
}

static void on_bell(void *ctx, uint32_t n)
{
	struct app *app = ctx;
	int a = (int)(app - fake.apps);

	if (n) {
		if (n < SOCKS)
			fake_rung(&app->arena->sock[n]);
		return;
	}
	hear(app);
	if (!app->channel)
		return;
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
	struct gz_envelope envelope;

	if (sendmsg(control, gz_envelope_message(&envelope, message, fds, (uint32_t)count), MSG_NOSIGNAL) < 0)
		perror("sendmsg");
}

static struct app *new_app(int control)
{
	for (int a = 0; a < APPS; a++) {
		if (fake.apps[a].control)
			continue;
		memset(&fake.apps[a], 0, sizeof(fake.apps[a]));
		fake.apps[a].control = control;
		return &fake.apps[a];
	}
	fake_fail("too many applications");
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
		fake_fail("calloc");
	arena->fd = memory("arena", ARENA_BYTES);
	arena->shared = map(arena->fd, ARENA_BYTES, PROT_READ | PROT_WRITE);
	arena->shared->magic = GZ_ARENA_MAGIC;
	arena->shared->abi_version = GZ_ABI_VERSION;
	arena->shared->socks = GZ_SOCKS_MAX;
	arena->next_sock = 1;
	arena->next_page = (sizeof(struct gz_arena) + GZ_ARENA_PAGE - 1) / GZ_ARENA_PAGE;
	return arena;
}

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len);
	return cookie;
}

/* A child, who holds all its parent does; or (CARRY) what holds one socket on its way. */
static void on_fork(struct app *parent, const struct gz_message *message)
{
	struct gz_message answer = { .kind = GZ_MESSAGE_FORKED };
	int ends[2];
	struct app *child;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		fake_fail("socketpair");
	child = new_app(ends[0]);
	child->arena = parent->arena;
	child->cookie = message->kind == GZ_MESSAGE_CARRY ? cookie_of(ends[1]) : 0;
	child->carries = message->number;
	memcpy(child->note, message->text, sizeof(child->note));
	for (uint32_t n = 1; n < parent->arena->next_sock; n++)
		if (parent->arena->sock[n].holders & 1u << (parent - fake.apps) && (!child->cookie || child->carries == n))
			parent->arena->sock[n].holders |= 1u << (child - fake.apps);
	send_fds(parent->control, &answer, &ends[1], 1);
	close(ends[1]);
}

static void on_adopt(struct app *app, int end)
{
	struct gz_message answer = { .kind = GZ_MESSAGE_ADOPTED, .status = EPERM };
	uint64_t cookie = cookie_of(end);

	for (struct app *from = fake.apps; from < fake.apps + APPS && cookie; from++) {
		if (!from->control || from->arena != app->arena || from->cookie != cookie)
			continue;
		answer.status = 0;
		answer.number = from->carries;
		answer.attach_id = from->carries && app->arena->sock[from->carries].holders & 1u << (app - fake.apps);
		memcpy(answer.text, from->note, sizeof(answer.text));
		app->arena->sock[from->carries].holders |= 1u << (app - fake.apps);
	}
	send_fds(app->control, &answer, NULL, 0);
	close(end);
}

static void detach(struct app *app)
{
	app->gone = true;
	if (app->channel)
		on_bell(app, 0); /* what it had still posted */
	for (uint32_t n = 1; app->arena && n < app->arena->next_sock; n++)
		fake_release(&app->arena->sock[n], (int)(app - fake.apps));
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
	struct gz_envelope envelope;
	struct msghdr *msg = gz_envelope_open(&envelope, &message, sizeof(message));
	int fd = -1;

	if (gz_message_check(&message, recvmsg(app->control, msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT))) {
		detach(app);
		return;
	}
	(void)gz_fds_take(msg, &fd, 1);
	switch (message.kind) {
	case GZ_MESSAGE_HELLO:
		app->arena = new_arena();
		welcome(app);
		break;
	case GZ_MESSAGE_CLAIM:
		welcome(app);
		break;
	case GZ_MESSAGE_FORK:
	case GZ_MESSAGE_CARRY:
		on_fork(app, &message);
		break;
	case GZ_MESSAGE_ADOPT:
		on_adopt(app, fd);
		break;
	case GZ_MESSAGE_WAKE:
		gz_add(&fake.page->counters[GZ_COUNT_requests], 1); /* for the tests to see */
		break;
	case GZ_MESSAGE_VOUCH:
		close(fd);
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
		if (fake.apps[a].control && fake.apps[a].channel && gz_bell_pending(&fake.apps[a].channel->to_worker))
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
		if (fake.apps[a].control) {
			who[n] = &fake.apps[a];
			fds[n++] = (struct pollfd){ .fd = fake.apps[a].control, .events = POLLIN };
		}
	gz_store(&fake.page->asleep, ++sleeps);
	gz_fence();
	poll(fds, (nfds_t)n, pending() ? 0 : fake.refuse_later ? 20 : 1000);
	gz_store(&fake.page->asleep, 0);
	if (fake.refuse_later && !pending()) {
		fake_die(fake.refuse_later, ECONNREFUSED);
		fake.refuse_later = NULL;
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
		fake_fail(path);
	fake.group = map(fd, sizeof(*fake.group), PROT_READ);
	queue_id = (uint32_t)atoi(queue);
	snprintf(page_path, sizeof(page_path), "%.100s/worker.%u.page", fake.group->run_dir, queue_id);
	page_fd = open(page_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (page_fd < 0 || ftruncate(page_fd, sizeof(*fake.page)))
		fake_fail(page_path);
	fake.page = map(page_fd, sizeof(*fake.page), PROT_READ | PROT_WRITE);
	fake.page->magic = GZ_WORKER_MAGIC;
	gz_store(&fake.page->asleep, 0);
	listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.80s/worker.%u.sock", fake.group->run_dir, queue_id);
	unlink(addr.sun_path);
	if (bind(listen_fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(listen_fd, 64))
		fake_fail(addr.sun_path);
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
			if (fake.apps[a].control && fake.apps[a].channel)
				gz_bell_take(&fake.apps[a].channel->to_worker, 64, on_bell, &fake.apps[a]);
		for (int a = 0; a < APPS; a++)
			if (fake.apps[a].control && fake.apps[a].channel && fake.apps[a].rung)
				wake(&fake.apps[a]);
	}
}
