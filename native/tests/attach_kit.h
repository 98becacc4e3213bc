/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Tests of the attach handshake: the worker's side is the real one; the loop is turned by hand, and the "process" is the
 * test itself.
 */
#ifndef TEST_ATTACH_KIT_H
#define TEST_ATTACH_KIT_H

/*
 * The attach handshake and the rings of an attached process, with good and with hostile input: whatever a process sends or
 * writes, the worker goes on and at most that process is detached. The worker's side is the real one; the loop is turned
 * by hand, and the "process" is the test itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <gazelle/abi.h>
#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/bell.h>
#include <gazelle/channel.h>
#include <gazelle/control.h>
#include <gazelle/message.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include <lwip/def.h>
#include <lwip/init.h>

#include "apps/app.h"
#include "apps/apps.h"
#include "arena/remains.h"
#include "tcp/tcp_table.h"
#include "core/worker.h"

struct fixture {
	struct protocol_stack stack;
	struct gz_group_page *group;
	char dir[64];
};

static struct fixture *fx;

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void turn(void)
{
	struct epoll_event events[16];
	int n = epoll_wait(fx->stack.epoll_fd, events, 16, 0);

	fx->stack.now_ns = now_ns();
	for (int i = 0; i < n; i++)
		apps_event(&fx->stack, events[i].data.ptr, events[i].events);
	apps_poll(&fx->stack);
	apps_flush(&fx->stack);
}

static inline uint64_t counter(enum gz_counter c)
{
	return gz_load(&fx->stack.page->counters[c]);
}

static inline int set_up(void **state)
{
	char path[128];

	(void)state;
	fx = calloc(1, sizeof(*fx));
	fx->group = calloc(1, sizeof(*fx->group));
	strcpy(fx->dir, "/tmp/gz-attach-XXXXXX");
	assert_non_null(mkdtemp(fx->dir));
	strcpy(fx->group->run_dir, fx->dir);
	fx->group->allow_everybody = 1;
	fx->group->file_gid = GZ_NO_ID;
	fx->group->rpc_number = 4;
	fx->group->read_connect_number = 4;
	fx->group->tot_queue_num = fx->group->num_queue = 1;
	fx->group->host_addr_be = PP_HTONL(0x0a000002);
	memcpy(fx->group->own[0], (uint8_t[16]){ [10] = 0xff, 0xff, 10, 0, 0, 2 }, 16);
	fx->stack.group = fx->group;
	fx->stack.plan = &fx->group->workers[0];
	fx->stack.now_ns = now_ns();
	snprintf(path, sizeof(path), "%s/worker.0.page", fx->dir);
	int fd = open(path, O_RDWR | O_CREAT, 0644);
	assert_int_equal(ftruncate(fd, sizeof(struct gz_worker_page)), 0);
	fx->stack.page = mmap(NULL, sizeof(struct gz_worker_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	fx->stack.pages[0] = fx->stack.page;
	fx->stack.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	assert_int_equal(apps_open(&fx->stack), 0);
	return 0;
}

static inline int tear_down(void **state)
{
	char path[128];

	(void)state;
	for (struct app *app = fx->stack.apps->all; app; app = app->next)
		app_detach_later(app, NULL);
	apps_flush(&fx->stack);
	turn();
	turn();
	while (remains_work(&fx->stack.apps->arenas))
		;
	close(fx->stack.apps->listen_fd);
	close(fx->stack.apps->spare_fd);
	close(fx->stack.epoll_fd);
	free(fx->stack.apps);
	munmap(fx->stack.page, sizeof(struct gz_worker_page));
	snprintf(path, sizeof(path), "%s/worker.0.sock", fx->dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/worker.0.page", fx->dir);
	unlink(path);
	rmdir(fx->dir);
	free(fx->group);
	free(fx);
	return 0;
}

/* What an attached process has of one worker. */
struct process {
	int fd;
	struct gz_arena *arena;
	struct gz_channel *channel;
	struct gz_message answer;
};

static inline int dial(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/worker.0.sock", fx->dir);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static inline void say(int fd, const struct gz_message *message, size_t len, int passed)
{
	struct gz_envelope envelope;

	assert_int_equal(sendmsg(fd, gz_envelope_fill(&envelope, message, len, &passed, passed >= 0), MSG_NOSIGNAL), len);
}

static inline struct gz_message message(uint32_t kind)
{
	return (struct gz_message){ .magic = GZ_ATTACH_MAGIC, .abi_version = GZ_ABI_VERSION, .kind = kind };
}

/* Reads one answer and its descriptors; -1 = none yet, 0 = the worker has hung up. */
static inline ssize_t hear(int fd, struct gz_message *answer, int fds[GZ_WELCOME_FDS])
{
	struct gz_envelope envelope;
	struct msghdr *msg = gz_envelope_open(&envelope, answer, sizeof(*answer));
	ssize_t n = recvmsg(fd, msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n > 0)
		(void)gz_fds_take(msg, fds, GZ_WELCOME_FDS);
	return n;
}

static inline struct process greet(int fd, uint32_t kind)
{
	struct process p = { .fd = fd };
	struct gz_message m = message(kind);
	int fds[GZ_WELCOME_FDS];

	say(fd, &m, sizeof(m), -1);
	turn();
	turn();
	assert_int_equal(hear(fd, &p.answer, fds), sizeof(p.answer));
	assert_int_equal(p.answer.kind, GZ_MESSAGE_WELCOME);
	p.arena = mmap(NULL, p.answer.arena_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
	               fds[GZ_WELCOME_ARENA], 0);
	p.channel = mmap(NULL, sizeof(struct gz_channel), PROT_READ | PROT_WRITE, MAP_SHARED, fds[GZ_WELCOME_CHANNEL], 0);
	assert_ptr_not_equal(p.arena, MAP_FAILED);
	assert_ptr_not_equal(p.channel, MAP_FAILED);
	/* Sealed: the process cannot pull the memory from under the worker. */
	assert_int_equal(ftruncate(fds[GZ_WELCOME_CHANNEL], 0), -1);
	assert_int_equal(ftruncate(fds[GZ_WELCOME_ARENA], 0), -1);
	close(fds[GZ_WELCOME_ARENA]);
	close(fds[GZ_WELCOME_CHANNEL]);
	close(fds[GZ_WELCOME_PAGE]);
	return p;
}

static inline void leave(struct process *p)
{
	if (p->fd >= 0)
		close(p->fd);
	munmap(p->arena, p->answer.arena_size);
	munmap(p->channel, sizeof(struct gz_channel));
	turn();
}

static inline bool hung_up(int fd)
{
	struct gz_message answer;
	int fds[GZ_WELCOME_FDS];

	turn();
	turn();
	ssize_t n = hear(fd, &answer, fds);
	if (n > 0) /* a refusal may come before the end */
		n = hear(fd, &answer, fds);
	return n == 0 || (n < 0 && errno == ECONNRESET);
}

static inline uint32_t from_stock(struct process *p)
{
	struct gz_stock *stock = &p->channel->stock;
	uint32_t t = gz_load(&stock->tail);

	assert_int_not_equal(t, gz_load_acquire(&stock->head));
	gz_store(&stock->tail, t + 1);
	return gz_load(&stock->slot[t % GZ_STOCK]);
}

static inline void post(struct process *p, struct gz_request request)
{
	struct gz_request_ring *ring = &p->channel->requests;
	uint32_t head = gz_load(&ring->head);

	ring->slot[head % GZ_REQUESTS] = request;
	gz_store_release(&ring->head, head + 1);
	gz_bell_ring(&p->channel->to_worker, 0);
	turn();
}

/* Shows the worker a kernel socket for what socket n will ask for. */
static inline void vouch(struct process *p, uint32_t n, int fd)
{
	struct gz_message m = message(GZ_MESSAGE_VOUCH);

	m.number = n;
	say(p->fd, &m, sizeof(m), fd);
}

/* A kernel socket on 127.0.0.1, and the request for its port; a listener for LISTEN. */
static inline int kernel_socket(uint32_t op, uint32_t n, struct gz_request *request)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, (op == GZ_REQUEST_BIND ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(in);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	if (op == GZ_REQUEST_LISTEN)
		assert_int_equal(listen(fd, 5), 0);
	*request = (struct gz_request){ .op = op, .sock = n, .port = ntohs(in.sin_port), .arg = 5, .family = AF_INET };
	request->addr[10] = request->addr[11] = 0xff;
	memcpy(request->addr + 12, &in.sin_addr, 4);
	return fd;
}

/* Socket n listens; on a port of 127.0.0.1 that the kernel has chosen, and that the worker alone has open from then on. */
static inline uint16_t start_listening(struct process *p, uint32_t n)
{
	struct gz_request request;
	int fd = kernel_socket(GZ_REQUEST_LISTEN, n, &request);

	vouch(p, n, fd);
	close(fd);
	post(p, request);
	return request.port;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* What the worker's libraries need once. 0 or 1. */
static inline int open_libraries(void)
{
	lwip_init();
	return tcp_table_open() ? 1 : 0;
}

#endif
