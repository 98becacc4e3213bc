/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The attach handshake and the rings of an attached process, with good and with hostile input: whatever a process sends or
 * writes, the worker goes on and at most that process is detached. The worker's side is the real one; the loop is turned
 * by hand, and the "process" is the test itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <gazelle/abi.h>
#include <gazelle/attach.h>

#include <lwip/def.h>
#include <lwip/init.h>

#include "app.h"
#include "apps.h"
#include "tcp_table.h"
#include "worker.h"

struct fixture {
	struct protocol_stack stack;
	struct gz_group_page *group;
	char dir[64];
};

static struct fixture *fx;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void turn(void)
{
	struct epoll_event events[16];
	int n = epoll_wait(fx->stack.epoll_fd, events, 16, 0);

	fx->stack.now_ns = now_ns();
	for (int i = 0; i < n; i++)
		apps_event(&fx->stack, events[i].data.ptr, events[i].events);
	apps_poll(&fx->stack);
	apps_flush(&fx->stack);
}

static uint64_t counter(enum gz_counter c)
{
	return gz_load(&fx->stack.page->counters[c]);
}

static int set_up(void **state)
{
	char path[128];

	(void)state;
	fx = calloc(1, sizeof(*fx));
	fx->group = calloc(1, sizeof(*fx->group));
	strcpy(fx->dir, "/tmp/gz-attach-XXXXXX");
	assert_non_null(mkdtemp(fx->dir));
	strcpy(fx->group->run_dir, fx->dir);
	fx->group->rpc_number = 4;
	fx->group->read_connect_number = 4;
	fx->group->tot_queue_num = fx->group->num_queue = 1;
	fx->group->host_addr_be = PP_HTONL(0x0a000002);
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

static int tear_down(void **state)
{
	char path[128];

	(void)state;
	for (struct app *app = fx->stack.apps->all; app; app = app->next)
		app_doom(app, NULL);
	apps_flush(&fx->stack);
	turn();
	turn();
	close(fx->stack.apps->listen_fd);
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

static int dial(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/worker.0.sock", fx->dir);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void say(int fd, const struct gz_message *message, size_t len, int passed)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { .iov_base = (void *)message, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (passed >= 0) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &passed, sizeof(int));
	}
	assert_int_equal(sendmsg(fd, &msg, MSG_NOSIGNAL), len);
}

static struct gz_message message(uint32_t kind)
{
	return (struct gz_message){ .magic = GZ_ATTACH_MAGIC, .abi_version = GZ_ABI_VERSION, .kind = kind };
}

/* Reads one answer and its descriptors; -1 = none yet, 0 = the worker has hung up. */
static ssize_t hear(int fd, struct gz_message *answer, int fds[GZ_WELCOME_FDS])
{
	char control[CMSG_SPACE(GZ_WELCOME_FDS * sizeof(int))];
	struct iovec iov = { .iov_base = answer, .iov_len = sizeof(*answer) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n > 0 && CMSG_FIRSTHDR(&msg))
		memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&msg)), CMSG_FIRSTHDR(&msg)->cmsg_len - CMSG_LEN(0));
	return n;
}

static struct process greet(int fd, uint32_t kind)
{
	struct process p = { .fd = fd };
	struct gz_message m = message(kind);
	int fds[GZ_WELCOME_FDS];

	say(fd, &m, sizeof(m), -1);
	turn();
	turn();
	assert_int_equal(hear(fd, &p.answer, fds), sizeof(p.answer));
	assert_int_equal(p.answer.kind, GZ_MESSAGE_WELCOME);
	p.arena = mmap(NULL, sizeof(struct gz_arena), PROT_READ | PROT_WRITE, MAP_SHARED, fds[GZ_WELCOME_ARENA], 0);
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

static void leave(struct process *p)
{
	if (p->fd >= 0)
		close(p->fd);
	munmap(p->arena, sizeof(struct gz_arena));
	munmap(p->channel, sizeof(struct gz_channel));
	turn();
}

static bool hung_up(int fd)
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

static uint32_t from_stock(struct process *p)
{
	struct gz_stock *stock = &p->channel->stock;
	uint32_t t = gz_load(&stock->tail);

	assert_int_not_equal(t, gz_load_acquire(&stock->head));
	gz_store(&stock->tail, t + 1);
	return gz_load(&stock->slot[t % GZ_STOCK]);
}

static void post(struct process *p, struct gz_request request)
{
	struct gz_request_ring *ring = &p->channel->requests;
	uint32_t head = gz_load(&ring->head);

	ring->slot[head % GZ_REQUESTS] = request;
	gz_store_release(&ring->head, head + 1);
	gz_bell_ring(&p->channel->to_worker, 0);
	turn();
}

static void a_process_attaches_and_leaves(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);

	assert_int_equal(p.arena->magic, GZ_ARENA_MAGIC);
	assert_int_equal(p.channel->magic, GZ_CHANNEL_MAGIC);
	assert_int_equal(counter(GZ_COUNT_attachments), 1);
	assert_int_equal(gz_load(&fx->stack.page->apps[p.answer.attach_id].pid), getpid());
	leave(&p);
	assert_int_equal(counter(GZ_COUNT_attachments), 0);
	assert_int_equal(gz_load(&fx->stack.page->apps[p.answer.attach_id].pid), 0);
}

static void bad_greetings_are_refused(void **state)
{
	struct gz_message bad[4] = { message(GZ_MESSAGE_HELLO), message(GZ_MESSAGE_HELLO), message(99),
		                     message(GZ_MESSAGE_CLAIM) };

	(void)state;
	bad[0].magic = 1;
	bad[1].abi_version = GZ_ABI_VERSION + 1;
	for (int i = 0; i < 4; i++) {
		int fd = dial();

		say(fd, &bad[i], sizeof(bad[i]), -1);
		assert_true(hung_up(fd));
		close(fd);
	}
	int fd = dial(); /* too short */
	say(fd, &bad[0], 7, -1);
	assert_true(hung_up(fd));
	close(fd);
	fd = dial(); /* too long */
	char big[4096] = { 0 };
	say(fd, (struct gz_message *)big, sizeof(big), -1);
	assert_true(hung_up(fd));
	close(fd);
	assert_int_equal(counter(GZ_COUNT_attachments), 0);
}

static void a_second_hello_ends_the_attachment(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct gz_message m = message(GZ_MESSAGE_HELLO);

	say(p.fd, &m, sizeof(m), -1);
	assert_true(hung_up(p.fd));
	leave(&p);
}

static void event_queue_numbers_are_checked(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct gz_message m = message(GZ_MESSAGE_EVENT_QUEUE);
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	m.number = GZ_EVENT_QUEUES - 1;
	say(p.fd, &m, sizeof(m), ends[1]);
	turn();
	assert_int_equal(counter(GZ_COUNT_attachments), 1);
	m.number = GZ_EVENT_QUEUES;
	say(p.fd, &m, sizeof(m), ends[1]);
	assert_true(hung_up(p.fd));
	close(ends[0]);
	close(ends[1]);
	leave(&p);
}

static void nothing_but_a_pair_of_sockets_can_be_woken(void **state)
{
	int fds[4], ends[2];

	(void)state;
	fds[0] = eventfd(0, 0);
	fds[1] = open("/dev/null", O_WRONLY);
	fds[2] = socket(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(pipe(ends), 0);
	close(ends[0]);
	fds[3] = ends[1];
	for (int i = 0; i < 4; i++) {
		struct process p = greet(dial(), GZ_MESSAGE_HELLO);
		struct gz_message m = message(GZ_MESSAGE_EVENT_QUEUE);

		say(p.fd, &m, sizeof(m), fds[i]);
		assert_true(hung_up(p.fd));
		close(fds[i]);
		leave(&p);
	}
}

static void a_process_that_lets_nobody_wake_it_holds_up_nobody(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct gz_message m = message(GZ_MESSAGE_EVENT_QUEUE);
	uint32_t n = from_stock(&p);
	int ends[2], wakes = 0;
	char byte;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	say(p.fd, &m, sizeof(m), ends[1]);
	turn();
	assert_int_equal(recv(ends[0], &byte, 1, MSG_DONTWAIT), 1); /* it is told to look again */
	/* It fills it up to where a write waits, and makes writes wait. */
	while (send(ends[1], "", 1, MSG_DONTWAIT) == 1)
		wakes++;
	assert_int_equal(fcntl(ends[1], F_SETFL, O_RDWR), 0);
	gz_store(&p.channel->interest[n], 1);
	gz_store(&p.channel->to_app[0].asleep, 1);
	post(&p, (struct gz_request){ .op = GZ_REQUEST_LISTEN, .sock = n, .port = 80, .arg = 5 }); /* turns the loop */
	assert_int_equal(gz_load(&p.channel->to_app[0].asleep), 0);
	/* With room it is woken. */
	while (wakes--)
		assert_int_equal(recv(ends[0], &byte, 1, MSG_DONTWAIT), 1);
	gz_store(&p.channel->to_app[0].asleep, 1);
	n = from_stock(&p);
	gz_store(&p.channel->interest[n], 1);
	post(&p, (struct gz_request){ .op = GZ_REQUEST_LISTEN, .sock = n, .port = 81, .arg = 5 });
	assert_int_equal(recv(ends[0], &byte, 1, MSG_DONTWAIT), 1);
	assert_int_equal(counter(GZ_COUNT_wakeups_written), 1);
	close(ends[0]);
	close(ends[1]);
	leave(&p);
}

static void a_worker_is_woken_by_a_message(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct gz_message m = message(GZ_MESSAGE_WAKE);
	struct pollfd asleep = { .fd = fx->stack.epoll_fd, .events = POLLIN };

	assert_int_equal(poll(&asleep, 1, 0), 0);
	say(p.fd, &m, sizeof(m), -1);
	assert_int_equal(poll(&asleep, 1, 0), 1);
	assert_false(hung_up(p.fd));
	assert_int_equal(poll(&asleep, 1, 0), 0);
	leave(&p);
}

static int open_descriptors(void)
{
	int used = 0;

	for (int fd = 0; fd < 512; fd++)
		used += fcntl(fd, F_GETFD) >= 0;
	return used;
}

/* As many as fill whatever room the worker leaves for control data. */
static void say_with_many(int fd, const struct gz_message *message, size_t len)
{
	char control[CMSG_SPACE(64 * sizeof(int))] = { 0 };
	struct iovec iov = { .iov_base = (void *)message, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(64 * sizeof(int));
	for (int i = 0; i < 64; i++)
		memcpy(CMSG_DATA(c) + i * (int)sizeof(int), &fx->stack.epoll_fd, sizeof(int));
	assert_int_equal(sendmsg(fd, &msg, MSG_NOSIGNAL), len);
}

static void descriptors_nobody_asked_for_are_closed(void **state)
{
	(void)state;
	struct gz_message m = message(GZ_MESSAGE_EVENT_QUEUE);
	int before = open_descriptors();

	for (size_t len = 0; len <= sizeof(m); len += sizeof(m)) {
		struct process p = greet(dial(), GZ_MESSAGE_HELLO);

		say_with_many(p.fd, &m, len);
		assert_true(hung_up(p.fd));
		leave(&p);
		assert_int_equal(open_descriptors(), before);
	}
}

static void a_process_that_never_stops_talking_is_heard_by_turns(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO), q;
	struct gz_message m = message(GZ_MESSAGE_EVENT_QUEUE);
	int ends[2], said = 0, heard = 0;
	char byte;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	fcntl(p.fd, F_SETFL, O_NONBLOCK);
	for (; said < 100; said++) {
		struct pollfd room = { .fd = p.fd, .events = POLLOUT };
		if (poll(&room, 1, 0) != 1)
			break;
		say(p.fd, &m, sizeof(m), ends[1]);
	}
	turn();
	while (recv(ends[0], &byte, 1, MSG_DONTWAIT) == 1)
		heard++;
	assert_true(heard > 0);
	if (said > 16)
		assert_true(heard < said);
	q = greet(dial(), GZ_MESSAGE_HELLO);
	close(ends[0]);
	close(ends[1]);
	leave(&q);
	leave(&p);
}

static void a_listener_opens_and_dies_with_its_process(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	uint32_t n = from_stock(&p);

	post(&p, (struct gz_request){ .op = GZ_REQUEST_LISTEN, .sock = n, .port = 6379, .arg = 511 });
	assert_int_equal(gz_load(&p.arena->sock[n].worker.flags), GZ_WORKER_OPEN | GZ_WORKER_LISTENING);
	assert_int_equal(gz_load(&fx->stack.page->listeners[0].port_owner) >> 16, 6379);
	leave(&p);
	turn();
	turn();
	assert_int_equal(gz_load(&fx->stack.page->listeners[0].port_owner), 0);
	assert_int_equal(counter(GZ_COUNT_sockets), 0);
}

static void forged_requests_detach_the_forger_only(void **state)
{
	const struct gz_request forged[] = {
		{ .op = GZ_REQUEST_LISTEN, .sock = 0, .port = 1 },
		{ .op = GZ_REQUEST_LISTEN, .sock = GZ_SOCKS_MAX, .port = 1 },
		{ .op = GZ_REQUEST_CONNECT, .sock = 40000, .peer_port = 1 },
		{ .op = 77, .sock = 5 },
	};

	(void)state;
	struct process witness = greet(dial(), GZ_MESSAGE_HELLO);
	for (size_t i = 0; i < sizeof(forged) / sizeof(forged[0]); i++) {
		struct process p = greet(dial(), GZ_MESSAGE_HELLO);

		post(&p, forged[i]);
		assert_true(hung_up(p.fd));
		leave(&p);
		assert_int_equal(counter(GZ_COUNT_detached_hostile), i + 1);
	}
	struct process p = greet(dial(), GZ_MESSAGE_HELLO); /* an index that cannot be */
	gz_store(&p.channel->requests.head, 100000);
	gz_bell_ring(&p.channel->to_worker, 0);
	assert_true(hung_up(p.fd));
	leave(&p);
	assert_int_equal(counter(GZ_COUNT_attachments), 1);
	assert_false(hung_up(witness.fd));
	leave(&witness);
}

static void bells_for_sockets_of_others_do_nothing(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);

	for (uint32_t n = 1; n < GZ_SOCKS_MAX; n += 97)
		gz_bell_ring(&p.channel->to_worker, n);
	for (int i = 0; i < 10; i++)
		turn();
	post(&p, (struct gz_request){ .op = GZ_REQUEST_RELEASE, .sock = 12345 });
	post(&p, (struct gz_request){ .op = GZ_REQUEST_CLAIM, .sock = 12345 });
	assert_int_equal(counter(GZ_COUNT_attachments), 1);
	leave(&p);
}

static void a_fork_keeps_the_listener_until_both_are_gone(void **state)
{
	(void)state;
	struct process parent = greet(dial(), GZ_MESSAGE_HELLO);
	uint32_t n = from_stock(&parent);
	struct gz_message m = message(GZ_MESSAGE_FORK), answer;
	int pair[2], fds[GZ_WELCOME_FDS];

	post(&parent, (struct gz_request){ .op = GZ_REQUEST_LISTEN, .sock = n, .port = 80, .arg = 5 });
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	say(parent.fd, &m, sizeof(m), pair[1]);
	close(pair[1]);
	turn();
	assert_int_equal(hear(parent.fd, &answer, fds), sizeof(answer));
	assert_int_equal(answer.kind, GZ_MESSAGE_FORKED);
	assert_int_equal(answer.status, 0);
	post(&parent, (struct gz_request){ .op = GZ_REQUEST_RELEASE, .sock = n });
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 1);
	struct process child = greet(pair[0], GZ_MESSAGE_CLAIM);
	assert_int_equal(gz_load(&child.arena->sock[n].worker.flags), GZ_WORKER_OPEN | GZ_WORKER_LISTENING);
	leave(&child);
	turn();
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 0);
	leave(&parent);
}

static void an_unclaimed_fork_drops_its_references(void **state)
{
	(void)state;
	struct process parent = greet(dial(), GZ_MESSAGE_HELLO);
	uint32_t n = from_stock(&parent);
	struct gz_message m = message(GZ_MESSAGE_FORK);
	int pair[2];

	post(&parent, (struct gz_request){ .op = GZ_REQUEST_LISTEN, .sock = n, .port = 80, .arg = 5 });
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	say(parent.fd, &m, sizeof(m), pair[1]);
	close(pair[1]);
	turn();
	close(pair[0]);
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 1);
	assert_int_equal(counter(GZ_COUNT_attachments), 1);
	leave(&parent);
	turn();
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 0);
}

static void a_thousand_attachments_leave_nothing(void **state)
{
	(void)state;
	for (int i = 0; i < 1000; i++) {
		struct process p = greet(dial(), GZ_MESSAGE_HELLO);

		post(&p, (struct gz_request){ .op = GZ_REQUEST_LISTEN, .sock = from_stock(&p), .port = 7, .arg = 5 });
		leave(&p);
	}
	turn();
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 0);
	assert_int_equal(counter(GZ_COUNT_attachments), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
		TEST(a_process_attaches_and_leaves),
		TEST(bad_greetings_are_refused),
		TEST(a_second_hello_ends_the_attachment),
		TEST(event_queue_numbers_are_checked),
		TEST(nothing_but_a_pair_of_sockets_can_be_woken),
		TEST(a_process_that_lets_nobody_wake_it_holds_up_nobody),
		TEST(a_worker_is_woken_by_a_message),
		TEST(descriptors_nobody_asked_for_are_closed),
		TEST(a_process_that_never_stops_talking_is_heard_by_turns),
		TEST(a_listener_opens_and_dies_with_its_process),
		TEST(forged_requests_detach_the_forger_only),
		TEST(bells_for_sockets_of_others_do_nothing),
		TEST(a_fork_keeps_the_listener_until_both_are_gone),
		TEST(an_unclaimed_fork_drops_its_references),
		TEST(a_thousand_attachments_leave_nothing),
	};

	lwip_init();
	if (tcp_table_open())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
