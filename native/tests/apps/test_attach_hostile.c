/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Whatever an attached process sends or writes, the worker goes on, and at most that process is detached. */
#include <sys/eventfd.h>
#include <sys/resource.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/bell.h>
#include <gazelle/channel.h>
#include <gazelle/control.h>
#include <gazelle/message.h>
#include <gazelle/worker_page.h>

#include "attach_kit.h"

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

/* What the worker keeps must not keep the process attached: its own end of the control socket, by itself or in a queue. */
static void nothing_is_kept_that_would_outlive_the_process(void **state)
{
	struct gz_message vouch = message(GZ_MESSAGE_VOUCH), queue = message(GZ_MESSAGE_EVENT_QUEUE);
	int ends[2];

	(void)state;
	gz_store(&fx->stack.page->pid, (uint32_t)getpid());
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	say(p.fd, &vouch, sizeof(vouch), p.fd);
	leave(&p);
	turn();
	assert_int_equal(counter(GZ_COUNT_attachments), 0);

	p = greet(dial(), GZ_MESSAGE_HELLO);
	say(p.fd, &queue, sizeof(queue), p.fd);
	assert_true(hung_up(p.fd));
	leave(&p);

	gz_store(&fx->stack.page->pid, 0);
	p = greet(dial(), GZ_MESSAGE_HELLO);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	say(ends[0], &queue, sizeof(queue), p.fd);
	say(p.fd, &queue, sizeof(queue), ends[1]);
	assert_true(hung_up(p.fd));
	close(ends[0]);
	close(ends[1]);
	leave(&p);

	p = greet(dial(), GZ_MESSAGE_HELLO);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	say(p.fd, &queue, sizeof(queue), ends[1]);
	turn();
	assert_int_equal(send(ends[0], "", 1, MSG_NOSIGNAL), -1);
	close(ends[0]);
	close(ends[1]);
	leave(&p);
	assert_int_equal(counter(GZ_COUNT_attachments), 0);
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
	(void)start_listening(&p, n); /* turns the loop */
	assert_int_equal(gz_load(&p.channel->to_app[0].asleep), 0);
	/* With room it is woken. */
	while (wakes--)
		assert_int_equal(recv(ends[0], &byte, 1, MSG_DONTWAIT), 1);
	gz_store(&p.channel->to_app[0].asleep, 1);
	n = from_stock(&p);
	gz_store(&p.channel->interest[n], 1);
	(void)start_listening(&p, n);
	assert_int_equal(recv(ends[0], &byte, 1, MSG_DONTWAIT), 1);
	assert_int_equal(counter(GZ_COUNT_wakeups_written), 1);
	close(ends[0]);
	close(ends[1]);
	leave(&p);
}

/* A connection of this host that has more to send than its reader takes, and waits for that when it is closed. */
static int lingering(int *reader)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct linger long_time = { .l_onoff = 1, .l_linger = 60 };
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof(in);
	static char data[1 << 16];

	assert_int_equal(bind(listener, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&in, &len), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	*reader = accept(listener, NULL, NULL);
	close(listener);
	while (send(fd, data, sizeof(data), MSG_DONTWAIT) > 0)
		;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &long_time, sizeof(long_time)), 0);
	return fd;
}

/* The ways by which the last descriptor of such a socket may come to be closed by the worker. */
enum way {
	ALONE,
	IN_A_STREAM,
	AFTER_A_REFUSAL,
	IN_A_QUEUE,
	IN_A_QUEUE_OF_A_QUEUE,
	AFTER_AN_EMPTY_DATAGRAM,
	NOT_YET_ACCEPTED,
	AMONG_MANY,
	WAYS
};

static void say_in_queue(int fd, uint32_t kind, int what, int type)
{
	struct gz_message m = message(kind);
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, type, 0, ends), 0);
	if (type == SOCK_DGRAM)
		assert_int_equal(send(ends[0], "", 0, 0), 0);
	say(ends[0], &m, sizeof(m), what);
	say(fd, &m, sizeof(m), ends[1]);
	close(ends[0]);
	close(ends[1]);
}

/* A listener at an address of its own, to whom somebody has connected and sent the descriptor. */
static void say_in_embryo(int fd, uint32_t kind, int what)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct gz_message m = message(kind);
	int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0), client = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	socklen_t len = sizeof(at);

	assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at.sun_family)), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(connect(client, (struct sockaddr *)&at, len), 0);
	say(client, &m, sizeof(m), what);
	say(fd, &m, sizeof(m), listener);
	close(client);
	close(listener);
}

/* Many more than a message may bring. */
static void say_with_many(int fd, const struct gz_message *message, size_t len, int last)
{
	_Alignas(struct cmsghdr) char room[CMSG_SPACE(64 * sizeof(int))];
	struct gz_envelope envelope;
	struct msghdr *msg = gz_envelope_open(&envelope, (void *)message, len);
	int fds[64];

	for (int i = 0; i < 64; i++)
		fds[i] = i == 63 ? last : fx->stack.epoll_fd;
	msg->msg_control = room;
	gz_fds_put(msg, fds, 64);
	assert_int_equal(sendmsg(fd, msg, MSG_NOSIGNAL), len);
}

static void send_it(enum way way, int fd, uint32_t kind, int what)
{
	struct gz_message m = message(kind), bad = message(kind);
	int ends[2];

	bad.magic = 1;
	switch (way) {
	case AFTER_A_REFUSAL:
		say(fd, &bad, sizeof(bad), -1);
		say(fd, &m, sizeof(m), what);
		break;
	case IN_A_STREAM:
		say_in_queue(fd, kind, what, SOCK_STREAM);
		break;
	case IN_A_QUEUE:
		say_in_queue(fd, kind, what, SOCK_SEQPACKET);
		break;
	case IN_A_QUEUE_OF_A_QUEUE:
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
		say(ends[0], &m, sizeof(m), what);
		say_in_queue(fd, kind, ends[1], SOCK_SEQPACKET);
		close(ends[0]);
		close(ends[1]);
		break;
	case AFTER_AN_EMPTY_DATAGRAM:
		say_in_queue(fd, kind, what, SOCK_DGRAM);
		break;
	case NOT_YET_ACCEPTED:
		say_in_embryo(fd, kind, what);
		break;
	case AMONG_MANY:
		say_with_many(fd, &m, sizeof(m), what);
		break;
	default:
		say(fd, &m, sizeof(m), what);
	}
}

static int open_descriptors(void)
{
	int used = 0;

	for (int fd = 0; fd < 512; fd++)
		used += fcntl(fd, F_GETFD) >= 0;
	return used;
}

/* `gone`: the process has ended, with answers unread, before the worker looks. */
static void is_not_waited_for(enum way way, uint32_t kind, bool gone)
{
	int files = open_descriptors();
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	int reader, fd = lingering(&reader);
	uint64_t before = now_ns();

	send_it(way, p.fd, kind, fd);
	close(fd);
	if (!gone)
		turn();
	leave(&p);
	/* What a process has not read is looked after a while later. */
	do
		turn();
	while (open_descriptors() != files + 1 && now_ns() - before < 10000000000ull);
	if (now_ns() - before > 10000000000ull)
		fail_msg("message %u, way %u, %s", kind, (unsigned)way, gone ? "gone" : "there");
	close(reader);
}

static void a_socket_that_lingers_holds_up_nobody(void **state)
{
	uint32_t kinds[] = { GZ_MESSAGE_WAKE,        GZ_MESSAGE_PAIR, GZ_MESSAGE_VOUCH,
		             GZ_MESSAGE_EVENT_QUEUE, GZ_MESSAGE_FORK, GZ_MESSAGE_ADOPT };

	(void)state;
	for (enum way way = ALONE; way < WAYS; way++)
		for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
			is_not_waited_for(way, kinds[i], false);
			is_not_waited_for(way, kinds[i], true);
		}
}

static void descriptors_nobody_asked_for_are_closed(void **state)
{
	(void)state;
	struct gz_message m = message(GZ_MESSAGE_EVENT_QUEUE);
	int before = open_descriptors();

	for (size_t len = 0; len <= sizeof(m); len += sizeof(m)) {
		struct process p = greet(dial(), GZ_MESSAGE_HELLO);

		say_with_many(p.fd, &m, len, fx->stack.epoll_fd);
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

static void who_never_says_hello_is_let_go(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	int silent = dial();

	turn();
	assert_int_equal(counter(GZ_COUNT_attachments), 2);
	assert_false(hung_up(silent));
	for (struct app *app = fx->stack.apps->all; app; app = app->next)
		app->since_ns -= 3000000000u;
	fx->stack.apps->published_ns = 0;
	assert_true(hung_up(silent));
	assert_false(hung_up(p.fd));
	close(silent);
	leave(&p);
}

static void one_user_leaves_room_for_others(void **state)
{
	static int fds[GZ_APPS_MAX];
	uint32_t count = 0;
	uid_t me = geteuid();
	struct gz_message answer, hello = message(GZ_MESSAGE_HELLO);
	int unused[GZ_WELCOME_FDS];

	(void)state;
	if (!me) { /* the limit is not the administrator's */
		assert_int_equal(chmod(fx->dir, 0755), 0);
		assert_int_equal(seteuid(65534), 0);
	}
	for (; count < GZ_APPS_MAX; count++) {
		fds[count] = dial();
		say(fds[count], &hello, sizeof(hello), -1); /* also he who is refused may have spoken before */
		turn();
		if (counter(GZ_COUNT_attachments) == count)
			break;
	}
	/* With less descriptors than slots these are what he may have half of. */
	assert_in_range(count, 256, GZ_APPS_MAX / 2);
	/* Why, is the first that it hears, and all. */
	assert_int_equal(hear(fds[count], &answer, unused), sizeof(answer));
	assert_int_equal(answer.kind, GZ_MESSAGE_REFUSED);
	assert_int_equal(answer.status, EUSERS);
	assert_non_null(strstr(answer.text, "its user has as many"));
	assert_int_equal(hear(fds[count], &answer, unused), 0);
	assert_int_equal(seteuid(me), 0);
	if (!me) {
		struct process p = greet(dial(), GZ_MESSAGE_HELLO);

		leave(&p);
	}
	for (uint32_t i = 0; i <= count; i++)
		close(fds[i]);
	for (uint32_t i = 0; i < count; i++)
		turn();
	assert_int_equal(counter(GZ_COUNT_attachments), 0);
}

static void a_worker_without_descriptors_still_sleeps(void **state)
{
	struct rlimit before, none;
	struct pollfd asleep = { .fd = fx->stack.epoll_fd, .events = POLLIN };
	int fd = dial();

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = (rlim_t)fd + 1; /* all below are in use, for they are given out from below */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	turn();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(poll(&asleep, 1, 0), 0);
	assert_true(hung_up(fd));
	close(fd);
	fd = dial();
	turn();
	assert_int_equal(counter(GZ_COUNT_attachments), 1);
	close(fd);
	turn();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(event_queue_numbers_are_checked),
		TEST(nothing_but_a_pair_of_sockets_can_be_woken),
		TEST(nothing_is_kept_that_would_outlive_the_process),
		TEST(a_process_that_lets_nobody_wake_it_holds_up_nobody),
		TEST(a_socket_that_lingers_holds_up_nobody),
		TEST(descriptors_nobody_asked_for_are_closed),
		TEST(a_process_that_never_stops_talking_is_heard_by_turns),
		TEST(forged_requests_detach_the_forger_only),
		TEST(bells_for_sockets_of_others_do_nothing),
		TEST(who_never_says_hello_is_let_go),
		TEST(one_user_leaves_room_for_others),
		TEST(a_worker_without_descriptors_still_sleeps),
	};

	return open_libraries() || cmocka_run_group_tests(tests, NULL, NULL);
}
