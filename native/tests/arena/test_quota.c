/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What a user may have of a worker, and that it ends with his processes. */
#include <gazelle/arena.h>
#include <gazelle/channel.h>
#include <gazelle/control.h>
#include <gazelle/worker_page.h>

#include "attach_kit.h"
#include "apps/flight.h"
#include "apps/message.h"
#include "arena/quota.h"
#include "socket/conn.h"
#include "socket/orphan.h"
#include "socket/stream.h"

#define SECOND 1000000000ull

static uint64_t take_all(struct user *user, enum quota_kind kind)
{
	uint64_t count = 0;

	while (quota_take(user, kind))
		count++;
	return count;
}

static void nobody_has_more_than_he_leaves(void **state)
{
	struct quota quota = { .limit = { [QUOTA_SOCKETS] = 8000 } };
	struct user *root = quota_user(&quota, 0), *first = quota_user(&quota, 1000), *second = quota_user(&quota, 1001);

	(void)state;
	assert_int_equal(take_all(first, QUOTA_SOCKETS), 3500);
	assert_int_equal(take_all(second, QUOTA_SOCKETS), 1750);
	assert_int_equal(take_all(first, QUOTA_SOCKETS), 0);
	assert_int_equal(take_all(root, QUOTA_SOCKETS), 8000 - 3500 - 1750);
	assert_int_equal(take_all(second, QUOTA_SOCKETS), 0);
	for (int i = 0; i < 3500; i++)
		quota_give(first, QUOTA_SOCKETS);
	assert_int_equal(quota.used[QUOTA_SOCKETS], 4500);
	quota_let_go(first);
	quota_let_go(second);
	quota_let_go(root);
	assert_null(quota.users);
}

static void what_was_charged_is_given_back_once(void **state)
{
	struct quota quota = { .limit = { [QUOTA_SOCKETS] = 100, [QUOTA_ORPHANS] = 100 } };
	struct user *user = quota_user(&quota, 1000);
	uint32_t charges = 0;

	(void)state;
	assert_true(quota_charge(user, &charges, QUOTA_SOCKETS));
	assert_true(quota_charge(user, &charges, QUOTA_SOCKETS));
	assert_true(quota_charge(user, &charges, QUOTA_ORPHANS));
	assert_int_equal(user->used[QUOTA_SOCKETS], 1);
	quota_settle(user, &charges);
	quota_settle(user, &charges);
	assert_int_equal(user->used[QUOTA_SOCKETS], 0);
	assert_int_equal(quota.used[QUOTA_ORPHANS], 0);
	quota_let_go(user);
}

static void the_account_ends_with_the_last_process(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);

	post(&p, (struct gz_request){ .op = GZ_REQUEST_CONNECT, .sock = from_stock(&p), .family = AF_UNSPEC });
	assert_int_equal(fx->stack.apps->quota.users->used[QUOTA_SOCKETS], 1);
	assert_int_equal(fx->stack.apps->quota.used[QUOTA_PROCESSES], 1);
	leave(&p);
	for (int i = 0; i < 4; i++)
		turn();
	assert_null(fx->stack.apps->quota.users);
	for (int kind = 0; kind < QUOTA_KINDS; kind++)
		assert_int_equal(fx->stack.apps->quota.used[kind], 0);
}

static void an_orphan_lives_from_what_is_acknowledged(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct conn *conn = conn_create(&fx->stack.apps->sockets, fx->stack.apps->all->arena,
	                                arena_take_sock(fx->stack.apps->all->arena));

	assert_true(orphan_begin(conn));
	fx->stack.now_ns += ORPHAN_PATIENCE_NS - SECOND;
	orphan_progress(conn);
	fx->stack.now_ns += ORPHAN_PATIENCE_NS - SECOND;
	stream_end_overdue(&fx->stack.apps->sockets);
	assert_ptr_equal(fx->stack.apps->sockets.orphans, conn);
	assert_int_equal(counter(GZ_COUNT_sockets), 1);
	fx->stack.now_ns += 2 * SECOND;
	stream_end_overdue(&fx->stack.apps->sockets);
	assert_null(fx->stack.apps->sockets.orphans);
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 0);
	leave(&p);
}

static void send_two(struct app *app)
{
	struct gz_message m = message(GZ_MESSAGE_MEMBER);
	int fds[] = { fx->stack.epoll_fd, fx->stack.epoll_fd };

	assert_true(message_send(app->control_fd, &m, fds, 2));
}

static void take_one(int fd)
{
	struct gz_message m;
	int fds[GZ_WELCOME_FDS];

	assert_int_equal(hear(fd, &m, fds), sizeof(m));
	close(fds[0]);
	close(fds[1]);
}

static void who_leaves_descriptors_lying_is_charged_until_he_takes_them(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct apps *apps = fx->stack.apps;
	struct user *user = apps->quota.users;
	struct app *app = apps->all;

	user->uid = 1000;
	apps->quota.limit[QUOTA_FLIGHT] = 16; /* seven for one user */
	for (int i = 0; i < 3; i++) {
		assert_true(flight_charge(user, app->control_fd, &app->flying, 2));
		send_two(app);
	}
	assert_false(flight_charge(user, app->control_fd, &app->flying, 2));
	assert_int_equal(user->used[QUOTA_FLIGHT], 6);
	for (int i = 0; i < 3; i++)
		take_one(p.fd);
	assert_true(flight_charge(user, app->control_fd, &app->flying, 2));
	assert_int_equal(user->used[QUOTA_FLIGHT], 2);
	send_two(app);
	/* Who leaves has what he kept open still to take, or to close. */
	assert_int_equal(shutdown(p.fd, SHUT_WR), 0);
	turn();
	assert_null(apps->all);
	apps->published_ns = 0;
	turn();
	assert_int_equal(user->used[QUOTA_FLIGHT], 2);
	assert_int_equal(user->used[QUOTA_FILES], 1);
	take_one(p.fd);
	assert_true(hung_up(p.fd));
	apps->published_ns = 0;
	turn();
	leave(&p);
	for (int i = 0; i < 4; i++)
		turn();
	assert_null(apps->landings);
	assert_null(apps->quota.users);
}

static void look_at_memory(void)
{
	fx->stack.apps->published_ns = 0;
	turn();
}

static void memory_that_was_not_given_ends_the_program(void **state)
{
	(void)state;
	struct process witness = greet(dial(), GZ_MESSAGE_HELLO), p = greet(dial(), GZ_MESSAGE_HELLO);
	char *beyond = (char *)p.arena + sizeof(struct gz_arena);

	/* Its own table, and a few pages more: one that writes late to what it had is no thief. */
	memset(p.arena->sock, 0, sizeof(p.arena->sock));
	memset(beyond, 1, 4u << 20);
	look_at_memory();
	assert_false(hung_up(p.fd));
	memset(beyond, 1, 64u << 20);
	look_at_memory();
	assert_true(hung_up(p.fd));
	assert_false(hung_up(witness.fd));
	leave(&p);
	leave(&witness);
}

static void a_user_with_too_much_memory_loses_his_largest_program(void **state)
{
	(void)state;
	struct process small = greet(dial(), GZ_MESSAGE_HELLO), large = greet(dial(), GZ_MESSAGE_HELLO);

	fx->stack.apps->quota.users->uid = 1000; /* the administrator may have all */
	fx->stack.apps->quota.limit[QUOTA_MEMORY] = 16u << 20;
	memset(small.arena->sock, 0, 4u << 20);
	look_at_memory();
	assert_false(fx->stack.apps->quota.users->memory_short);
	memset(large.arena->sock, 0, 8u << 20);
	look_at_memory();
	assert_true(hung_up(large.fd));
	assert_false(hung_up(small.fd));
	leave(&large);
	look_at_memory();
	assert_false(hung_up(small.fd));
	leave(&small);
}

static void gigabytes_go_back_some_at_a_time(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct arena *arena = fx->stack.apps->all->arena;
	int fd = dup(arena->fd);
	struct stat st;

	memset((char *)p.arena + sizeof(struct gz_arena), 1, 96u << 20);
	arena_get(arena); /* an orphan */
	leave(&p);
	assert_non_null(fx->stack.apps->arenas.remains);
	assert_true(apps_pending(&fx->stack)); /* it does not sleep over it */
	for (int i = 0; i < 10 && fx->stack.apps->arenas.remains; i++)
		turn();
	assert_null(fx->stack.apps->arenas.remains);
	assert_int_equal(fstat(fd, &st), 0);
	assert_in_range(st.st_blocks, 0, (sizeof(struct gz_arena) + (1u << 20)) / 512);
	arena_put(arena);
	for (int i = 0; i < 10 && fx->stack.apps->arenas.remains; i++)
		turn();
	assert_null(fx->stack.apps->arenas.all);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_has_more_than_he_leaves),
		cmocka_unit_test(what_was_charged_is_given_back_once),
		TEST(the_account_ends_with_the_last_process),
		TEST(who_leaves_descriptors_lying_is_charged_until_he_takes_them),
		TEST(an_orphan_lives_from_what_is_acknowledged),
		TEST(memory_that_was_not_given_ends_the_program),
		TEST(a_user_with_too_much_memory_loses_his_largest_program),
		TEST(gigabytes_go_back_some_at_a_time),
	};

	return open_libraries() || cmocka_run_group_tests(tests, NULL, NULL);
}
