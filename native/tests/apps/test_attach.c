/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The attach handshake and the rings of an attached process: attaching, listening, forking, leaving. */
#include <sched.h>

#include <gazelle/abi.h>
#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/bell.h>
#include <gazelle/channel.h>
#include <gazelle/control.h>
#include <gazelle/worker_page.h>

#include "attach_kit.h"

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

/* Socket n changed; true if the process that was told looks for it from our CPU, and has not. */
static bool told_and_waiting(uint32_t n)
{
	struct apps *apps = fx->stack.apps;

	app_notify(apps->all->arena, n);
	turn();
	return apps_wait_here(&fx->stack);
}

static void ignore(void *ctx, uint32_t n)
{
	(void)ctx;
	(void)n;
}

static void who_was_told_on_our_cpu_waits_for_us(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	uint32_t n = from_stock(&p), here;
	struct gz_bell *bell = &p.channel->to_app[0];
	cpu_set_t all, one;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	here = (uint32_t)sched_getcpu();
	CPU_ZERO(&one);
	CPU_SET(here, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	(void)start_listening(&p, n);
	gz_store(&p.channel->interest[n], 1);

	assert_false(told_and_waiting(n)); /* it has not said where it runs */
	gz_store(&bell->cpu, here + 1 + 1);
	assert_false(told_and_waiting(n));
	gz_store(&bell->cpu, here + 1);
	assert_true(told_and_waiting(n));
	assert_false(apps_wait_here(&fx->stack)); /* once for each time it is told */
	assert_true(told_and_waiting(n));
	app_notify(fx->stack.apps->all->arena, n);
	turn();
	assert_int_equal(gz_bell_take(bell, 64, ignore, NULL), 1);
	assert_false(apps_wait_here(&fx->stack)); /* it has come to it */
	app_notify(fx->stack.apps->all->arena, n);
	turn();
	leave(&p);
	turn();
	assert_false(apps_wait_here(&fx->stack)); /* it is no more */
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

static void a_listener_opens_and_dies_with_its_process(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	uint32_t n = from_stock(&p);

	uint16_t port = start_listening(&p, n);
	assert_int_equal(gz_load(&p.arena->sock[n].worker.flags), GZ_WORKER_OPEN | GZ_WORKER_LISTENING);
	assert_int_equal(gz_load(&fx->stack.page->listeners[0].port_owner) >> 16, port);
	leave(&p);
	turn();
	turn();
	assert_int_equal(gz_load(&fx->stack.page->listeners[0].port_owner), 0);
	assert_int_equal(counter(GZ_COUNT_sockets), 0);
}

/* Socket n goes on its way with a note (0: a child, to whom all go); the end that comes for it, -1: none. */
static int send_off(struct process *p, uint32_t n, struct gz_message *answer)
{
	struct gz_message m = message(n ? GZ_MESSAGE_CARRY : GZ_MESSAGE_FORK);
	int fds[GZ_WELCOME_FDS] = { -1, -1, -1 };

	m.number = n;
	strcpy(m.text, "note");
	say(p->fd, &m, sizeof(m), -1);
	turn();
	assert_int_equal(hear(p->fd, answer, fds), sizeof(*answer));
	assert_int_equal(answer->kind, GZ_MESSAGE_FORKED);
	return fds[0];
}

static int adopt(struct process *p, int end, struct gz_message *answer)
{
	struct gz_message m = message(GZ_MESSAGE_ADOPT);
	int fds[GZ_WELCOME_FDS];

	say(p->fd, &m, sizeof(m), end);
	turn();
	assert_int_equal(hear(p->fd, answer, fds), sizeof(*answer));
	assert_int_equal(answer->kind, GZ_MESSAGE_ADOPTED);
	return answer->status;
}

static void a_fork_keeps_the_listener_until_both_are_gone(void **state)
{
	(void)state;
	struct process parent = greet(dial(), GZ_MESSAGE_HELLO);
	uint32_t n = from_stock(&parent);
	struct gz_message forked;

	(void)start_listening(&parent, n);
	int end = send_off(&parent, 0, &forked);
	assert_int_equal(forked.status, 0);
	post(&parent, (struct gz_request){ .op = GZ_REQUEST_RELEASE, .sock = n });
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 1);
	struct process child = greet(end, GZ_MESSAGE_CLAIM);
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
	struct gz_message forked;

	(void)start_listening(&parent, n);
	close(send_off(&parent, 0, &forked));
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 1);
	assert_int_equal(counter(GZ_COUNT_attachments), 1);
	leave(&parent);
	turn();
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 0);
}

static void a_socket_is_passed_to_a_child(void **state)
{
	(void)state;
	struct process parent = greet(dial(), GZ_MESSAGE_HELLO), stranger = greet(dial(), GZ_MESSAGE_HELLO);
	struct gz_message forked, sent, got;
	struct process child = greet(send_off(&parent, 0, &forked), GZ_MESSAGE_CLAIM);
	uint32_t n = from_stock(&parent), other = from_stock(&parent);

	(void)start_listening(&parent, n);
	(void)start_listening(&parent, other);
	int end = send_off(&parent, n, &sent), same = dup(end);
	assert_int_equal(sent.status, 0);
	assert_int_equal(gz_load(&fx->stack.page->apps[sent.attach_id].sockets), 0); /* nobody shows what is under way */
	post(&parent, (struct gz_request){ .op = GZ_REQUEST_RELEASE, .sock = n });
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 2);
	assert_int_equal(adopt(&stranger, end, &got), EPERM);
	assert_int_equal(adopt(&child, end, &got), 0);
	assert_int_equal(got.number, n);
	assert_int_equal(got.attach_id, 0);
	assert_string_equal(got.text, "note");
	assert_int_equal(adopt(&child, same, &got), 0); /* twice is once */
	assert_int_equal(got.attach_id, 1);
	close(end);
	close(same);
	turn();
	turn();
	assert_int_equal(gz_load(&child.arena->sock[n].worker.flags), GZ_WORKER_OPEN | GZ_WORKER_LISTENING);
	post(&child, (struct gz_request){ .op = GZ_REQUEST_RELEASE, .sock = n });
	turn();
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 1);
	leave(&child);
	leave(&parent);
	leave(&stranger);
	turn();
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 0);
}

/* Whatever a process shows in the place of an end: it gets nothing by it. */
static void an_end_cannot_be_made_up(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	uint32_t n = from_stock(&p);
	struct gz_message sent, got;
	int pair[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC), child;

	gz_store(&fx->stack.page->pid, (uint32_t)getpid()); /* the worker is known by it as the one who made the ends */
	(void)start_listening(&p, n);
	int end = send_off(&p, n, &sent);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	child = send_off(&p, 0, &got);
	assert_int_equal(adopt(&p, -1, &got), EPERM);
	assert_int_equal(adopt(&p, null, &got), EPERM);
	assert_int_equal(adopt(&p, pair[0], &got), EPERM);
	assert_int_equal(adopt(&p, p.fd, &got), EPERM); /* of an attachment, and of a child */
	assert_int_equal(adopt(&p, child, &got), EPERM);
	close(null);
	close(pair[0]);
	close(pair[1]);
	close(child);
	close(end);
	turn();
	assert_int_equal(send_off(&p, GZ_SOCKS_MAX + n, &sent), -1); /* what it does not hold */
	assert_int_equal(sent.status, EBADF);
	assert_int_equal(send_off(&p, from_stock(&p), &sent), -1);
	assert_int_equal(sent.status, EBADF);
	leave(&p);
	gz_store(&fx->stack.page->pid, 0);
}

/* Who has an end can take the socket that is in it, and sees nothing else of the program. */
static void an_end_is_no_child(void **state)
{
	(void)state;
	static const uint32_t kinds[] = { GZ_MESSAGE_CLAIM, GZ_MESSAGE_HELLO, GZ_MESSAGE_FORK, GZ_MESSAGE_PAIR,
		                          GZ_MESSAGE_CARRY };
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	uint32_t n = from_stock(&p);

	(void)start_listening(&p, n);
	for (uint32_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct gz_message sent, m = message(kinds[i]), answer;
		int fds[GZ_WELCOME_FDS], end = send_off(&p, n, &sent);

		say(end, &m, sizeof(m), -1);
		turn();
		turn();
		assert_int_equal(hear(end, &answer, fds), 0);
		close(end);
	}
	assert_int_equal(counter(GZ_COUNT_sockets), 1);
	leave(&p);
}

static void what_nobody_takes_is_let_go(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	uint32_t n = from_stock(&p);
	struct gz_message sent;

	close(send_off(&p, n, &sent));
	assert_int_equal(sent.status, EBADF); /* not a socket yet */
	(void)start_listening(&p, n);
	int end = send_off(&p, n, &sent);
	assert_int_equal(sent.status, 0);
	post(&p, (struct gz_request){ .op = GZ_REQUEST_RELEASE, .sock = n });
	close(end);
	turn();
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 0);
	assert_int_equal(counter(GZ_COUNT_attachments), 1);
	leave(&p);
}

static void a_thousand_attachments_leave_nothing(void **state)
{
	(void)state;
	for (int i = 0; i < 1000; i++) {
		struct process p = greet(dial(), GZ_MESSAGE_HELLO);

		(void)start_listening(&p, from_stock(&p));
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
		TEST(a_process_attaches_and_leaves),
		TEST(bad_greetings_are_refused),
		TEST(a_second_hello_ends_the_attachment),
		TEST(a_worker_is_woken_by_a_message),
		TEST(who_was_told_on_our_cpu_waits_for_us),
		TEST(a_listener_opens_and_dies_with_its_process),
		TEST(a_fork_keeps_the_listener_until_both_are_gone),
		TEST(an_unclaimed_fork_drops_its_references),
		TEST(a_socket_is_passed_to_a_child),
		TEST(an_end_cannot_be_made_up),
		TEST(an_end_is_no_child),
		TEST(what_nobody_takes_is_let_go),
		TEST(a_thousand_attachments_leave_nothing),
	};

	return open_libraries() || cmocka_run_group_tests(tests, NULL, NULL);
}
