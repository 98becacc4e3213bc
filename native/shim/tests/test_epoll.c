/* SPDX-License-Identifier: MulanPSL-2.0 */
/* epoll, poll and select over kernel and stack sockets alike. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/time.h>
#include <time.h>

#include "kit.h"

static int set_with(int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.u64 = (uint64_t)fd };
	int ep = epoll_create1(0);

	assert_true(ep >= 0);
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event), 0);
	return ep;
}

/* One event or none within `ms`; returns its bits. */
static uint32_t wait_one(int ep, int ms)
{
	struct epoll_event event = { 0 };
	int n = epoll_wait(ep, &event, 1, ms);

	assert_true(n >= 0);
	return n ? event.events : 0;
}

static void drain(int fd)
{
	char buf[64];

	while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
}

static uint64_t ms_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void level_stays_until_it_is_read(void **state)
{
	int fd[2], ep;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN);
	assert_int_equal(wait_one(ep, 0), 0);
	kit_send(fd[0], "x");
	assert_int_equal(wait_one(ep, 5000), EPOLLIN);
	assert_int_equal(wait_one(ep, 5000), EPOLLIN);
	drain(fd[1]);
	assert_int_equal(wait_one(ep, 0), 0);
	close(fd[0]);
	assert_int_equal(wait_one(ep, 5000), EPOLLIN);
	close(ep);
	close(fd[1]);
}

static void an_edge_comes_once_for_each_message(void **state)
{
	int fd[2], ep;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN | EPOLLRDHUP | EPOLLET);
	kit_send(fd[0], "x");
	assert_int_equal(wait_one(ep, 5000), EPOLLIN);
	assert_int_equal(wait_one(ep, 20), 0); /* unread, but no news */
	kit_send(fd[0], "y");
	assert_int_equal(wait_one(ep, 5000), EPOLLIN);
	drain(fd[1]);
	close(fd[0]);
	assert_int_equal(wait_one(ep, 5000), EPOLLIN | EPOLLRDHUP);
	assert_int_equal(wait_one(ep, 20), 0);
	close(ep);
	close(fd[1]);
}

static void an_edge_comes_when_a_full_socket_has_room(void **state)
{
	static char buf[1 << 16];
	int fd[2], ep;

	kit_pair(fd);
	fcntl(fd[0], F_SETFL, O_NONBLOCK);
	ep = set_with(fd[0], EPOLLOUT | EPOLLET);
	assert_int_equal(wait_one(ep, 5000), EPOLLOUT);
	assert_int_equal(wait_one(ep, 0), 0);
	while (write(fd[0], buf, sizeof(buf)) > 0)
		;
	for (uint32_t got = 0, spins = 0; !got && spins < 1000; spins++) {
		kit_await(fd[1], POLLIN);
		drain(fd[1]);
		got = wait_one(ep, 5);
		if (got)
			assert_int_equal(got, EPOLLOUT);
		assert_true(got || spins < 999);
	}
	close(ep);
	close(fd[0]);
	close(fd[1]);
}

static void a_one_shot_waits_to_be_armed_again(void **state)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLONESHOT };
	int fd[2], ep;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN | EPOLLONESHOT);
	kit_send(fd[0], "x");
	assert_int_equal(wait_one(ep, 5000), EPOLLIN);
	kit_send(fd[0], "y");
	assert_int_equal(wait_one(ep, 20), 0);
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_MOD, fd[1], &event), 0);
	assert_int_equal(wait_one(ep, 5000), EPOLLIN);
	close(ep);
	close(fd[0]);
	close(fd[1]);
}

static void control_answers_as_the_kernel_does(void **state)
{
	struct epoll_event event = { .events = EPOLLIN };
	int fd[2], ep = epoll_create1(0);

	kit_pair(fd);
	assert_errno(epoll_ctl(ep, EPOLL_CTL_MOD, fd[0], &event), ENOENT);
	assert_errno(epoll_ctl(ep, EPOLL_CTL_DEL, fd[0], NULL), ENOENT);
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd[0], &event), 0);
	assert_errno(epoll_ctl(ep, EPOLL_CTL_ADD, fd[0], &event), EEXIST);
	assert_errno(epoll_ctl(ep, 77, fd[0], &event), EINVAL);
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_DEL, fd[0], NULL), 0);
	kit_send(fd[1], "x");
	kit_await(fd[0], POLLIN);
	assert_int_equal(wait_one(ep, 0), 0);
	assert_errno(epoll_wait(ep, &event, 0, 0), EINVAL);
	close(ep);
	close(fd[0]);
	close(fd[1]);
}

static void a_closed_socket_leaves_its_sets(void **state)
{
	int fd[2], ep, copy;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN);
	copy = dup(fd[1]);
	close(fd[1]);
	kit_send(fd[0], "x");
	assert_int_equal(wait_one(ep, 5000), EPOLLIN); /* the duplicate keeps it */
	close(copy);
	assert_int_equal(wait_one(ep, 0), 0);
	close(ep);
	close(fd[0]);
}

static void kernel_descriptors_are_served_under_load(void **state)
{
	struct epoll_event event = { .events = EPOLLIN };
	uint64_t one = 1, deadline = ms_now() + 5000;
	int fd[2], ep, kernel = eventfd(0, EFD_NONBLOCK);
	bool seen = false;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN);
	event.data.u64 = (uint64_t)kernel;
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, kernel, &event), 0);
	kit_send(fd[0], "never read, so always ready");
	assert_int_equal(write(kernel, &one, sizeof(one)), sizeof(one));
	/* maxevents 1 and a stack socket that is always ready: the kernel's must get its turn. */
	while (!seen && ms_now() < deadline) {
		assert_int_equal(epoll_wait(ep, &event, 1, 1000), 1);
		seen = event.data.u64 == (uint64_t)kernel;
	}
	assert_true(seen);
	close(kernel);
	close(ep);
	close(fd[0]);
	close(fd[1]);
}

static void *send_later(void *arg)
{
	kit_await_asleep(getpid());
	kit_send(*(int *)arg, "x");
	return NULL;
}

static void a_sleeper_is_woken(void **state)
{
	pthread_t thread;
	int fd[2], ep;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN);
	pthread_create(&thread, NULL, send_later, &fd[0]);
	assert_int_equal(wait_one(ep, 10000), EPOLLIN);
	pthread_join(thread, NULL);
	drain(fd[1]);
	pthread_create(&thread, NULL, send_later, &fd[0]);
	assert_int_equal(kit_await(fd[1], POLLIN), POLLIN);
	pthread_join(thread, NULL);
	drain(fd[1]);
	pthread_create(&thread, NULL, send_later, &fd[0]);
	kit_expect(fd[1], "x");
	pthread_join(thread, NULL);
	close(ep);
	close(fd[0]);
	close(fd[1]);
}

struct late {
	int ep, fd;
};

static void *add_later(void *arg)
{
	struct late *late = arg;
	struct epoll_event event = { .events = EPOLLIN };

	kit_await_asleep(getpid());
	epoll_ctl(late->ep, EPOLL_CTL_ADD, late->fd, &event);
	return NULL;
}

static void a_sleeper_hears_of_a_socket_added_meanwhile(void **state)
{
	pthread_t thread;
	struct late late = { .ep = epoll_create1(0) };
	int fd[2];

	kit_pair(fd);
	kit_send(fd[0], "x");
	late.fd = fd[1];
	pthread_create(&thread, NULL, add_later, &late);
	assert_int_equal(wait_one(late.ep, 10000), EPOLLIN);
	pthread_join(thread, NULL);
	close(late.ep);
	close(fd[0]);
	close(fd[1]);
}

static void on_alarm(int sig)
{
	(void)sig;
}

static void signals_and_timeouts_end_a_sleep(void **state)
{
	struct itimerval soon = { .it_value.tv_usec = 20000 };
	struct sigaction action = { .sa_handler = on_alarm };
	struct epoll_event event;
	uint64_t from = ms_now(), took;
	int fd[2], ep;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN);
	assert_int_equal(wait_one(ep, 30), 0);
	took = ms_now() - from;
	assert_true(took >= 29 && took < 2000);
	sigaction(SIGVTALRM, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	assert_errno(epoll_wait(ep, &event, 1, 10000), EINTR);
	setitimer(ITIMER_REAL, &soon, NULL);
	assert_errno(read(fd[1], &event, 1), EINTR);
	alarm(60); /* the watchdog of KIT_MAIN shared this timer */
	signal(SIGALRM, SIG_DFL);
	close(ep);
	close(fd[0]);
	close(fd[1]);
}

static void many_sockets_share_a_set_fairly(void **state)
{
	enum { MANY = 100 };
	struct epoll_event event = { .events = EPOLLIN }, got[7];
	int fd[MANY][2], ep = epoll_create1(0), seen[MANY] = { 0 };

	for (int i = 0; i < MANY; i++) {
		kit_pair(fd[i]);
		event.data.u32 = (uint32_t)i;
		assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd[i][1], &event), 0);
		kit_send(fd[i][0], "x");
	}
	for (int i = 0; i < MANY; i++)
		kit_await(fd[i][1], POLLIN);
	/* All stay ready; nobody is reported twice before everybody was once. */
	for (int round = 0; round < 3; round++)
		for (int reported = 0; reported < MANY;) {
			int n = epoll_wait(ep, got, reported + 7 > MANY ? MANY - reported : 7, 5000);

			assert_true(n > 0);
			for (int i = 0; i < n; i++)
				assert_int_equal(seen[got[i].data.u32]++, round);
			reported += n;
		}
	close(ep);
	for (int i = 0; i < MANY; i++) {
		close(fd[i][0]);
		close(fd[i][1]);
	}
}

static void a_set_can_be_polled(void **state)
{
	int fd[2], ep;

	kit_pair(fd);
	ep = set_with(fd[1], EPOLLIN);
	struct pollfd p = { .fd = ep, .events = POLLIN };
	assert_int_equal(poll(&p, 1, 0), 0);
	kit_send(fd[0], "x");
	assert_int_equal(kit_await(ep, POLLIN), POLLIN);
	assert_int_equal(wait_one(ep, 0), EPOLLIN);
	drain(fd[1]);
	assert_int_equal(poll(&p, 1, 0), 0);
	close(ep);
	close(fd[0]);
	close(fd[1]);
}

static void select_and_poll_see_both_kinds(void **state)
{
	struct timeval tv = { .tv_sec = 5 };
	int fd[2], pipes[2];
	fd_set in, out;

	kit_pair(fd);
	assert_int_equal(pipe(pipes), 0);
	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_SET(fd[1], &in);
	FD_SET(pipes[0], &in);
	FD_SET(fd[1], &out);
	assert_int_equal(select(fd[1] + pipes[1] + 1, &in, &out, NULL, &tv), 1);
	assert_true(FD_ISSET(fd[1], &out) && !FD_ISSET(fd[1], &in));
	assert_int_equal(write(pipes[1], "x", 1), 1);
	kit_send(fd[0], "x");
	kit_await(fd[1], POLLIN);
	struct pollfd p[] = { { .fd = pipes[0], .events = POLLIN },
		              { .fd = -1 },
		              { .fd = fd[1], .events = POLLIN | POLLOUT } };
	assert_int_equal(poll(p, 3, 5000), 2);
	assert_int_equal(p[0].revents, POLLIN);
	assert_int_equal(p[2].revents, POLLIN | POLLOUT);
	close(pipes[0]);
	close(pipes[1]);
	close(fd[0]);
	close(fd[1]);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(level_stays_until_it_is_read),
	cmocka_unit_test(an_edge_comes_once_for_each_message),
	cmocka_unit_test(an_edge_comes_when_a_full_socket_has_room),
	cmocka_unit_test(a_one_shot_waits_to_be_armed_again),
	cmocka_unit_test(control_answers_as_the_kernel_does),
	cmocka_unit_test(a_closed_socket_leaves_its_sets),
	cmocka_unit_test(kernel_descriptors_are_served_under_load),
	cmocka_unit_test(a_sleeper_is_woken),
	cmocka_unit_test(a_sleeper_hears_of_a_socket_added_meanwhile),
	cmocka_unit_test(signals_and_timeouts_end_a_sleep),
	cmocka_unit_test(many_sockets_share_a_set_fairly),
	cmocka_unit_test(a_set_can_be_polled),
	cmocka_unit_test(select_and_poll_see_both_kinds),
};

KIT_MAIN(tests, 2)
