/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Handlers that use sockets wherever they come, and threads that are cancelled wherever they are. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <time.h>

#include "kit.h"

#define SIGNALS 3000u
#define PERIOD_US 60
#define ROUNDS 1000 /* of a test that makes connections */
#define CANCELS 150

static volatile sig_atomic_t handled, wrong;
static int other[2];        /* a connection of the handler's own */
static int disturbed = -1;  /* what the interrupted call works on */
static int their_listener;  /* and this */
static volatile int opened; /* connections the handler has made */

/* All that a handler may do to sockets, a little at a time. */
static void disturb(int sig)
{
	struct epoll_event event;
	char bytes[16];
	int fd, err = errno;

	switch (handled++ % 6) {
	case 0:
		if (send(other[0], "abc", 3, MSG_DONTWAIT | MSG_NOSIGNAL) != 3 ||
		    recv(other[1], bytes, 3, MSG_WAITALL) != 3 || memcmp(bytes, "abc", 3))
			wrong = 1;
		break;
	case 1:
		if (recv(disturbed, bytes, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno != EAGAIN && errno != ENOTCONN)
			wrong = 2;
		break;
	case 2:
		fd = dup(disturbed);
		if (close(fd))
			wrong = 3;
		break;
	case 3:
		fd = kit_connect(PEER_ADDR, 7);
		if (send(fd, "z", 1, 0) != 1 || recv(fd, bytes, 1, 0) != 1 || close(fd))
			wrong = 4;
		opened++;
		break;
	case 4:
		fd = epoll_create1(EPOLL_CLOEXEC);
		event = (struct epoll_event){ .events = EPOLLIN, .data.fd = disturbed };
		if (epoll_ctl(fd, EPOLL_CTL_ADD, disturbed, &event) || epoll_wait(fd, &event, 1, 0) < 0 || close(fd))
			wrong = 5;
		break;
	default:
		fd = accept4(their_listener, NULL, NULL, SOCK_NONBLOCK);
		if (fd >= 0)
			close(fd);
		break;
	}
	errno = err;
}

static void rain(bool on)
{
	struct itimerval often = { .it_interval.tv_usec = on ? PERIOD_US : 0, .it_value.tv_usec = on ? PERIOD_US : 0 };
	struct sigaction action = { .sa_handler = disturb, .sa_flags = SA_RESTART };

	if (on) {
		handled = wrong = 0;
		assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
	}
	assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
}

static int set_up(void **state)
{
	int flags;

	kit_pair(other);
	their_listener = kit_listen(STACK_ADDR, SOCK_NONBLOCK);
	flags = socket(AF_INET, SOCK_STREAM, 0);
	disturbed = flags;
	return flags < 0;
}

static int tear_down(void **state)
{
	struct sigaction none = { .sa_handler = SIG_DFL };

	rain(false);
	assert_int_equal(wrong, 0);
	sigaction(SIGALRM, &none, NULL);
	close(their_listener);
	kit_send(other[0], "end");
	kit_expect(other[1], "end");
	close(other[0]);
	close(other[1]);
	alarm(60); /* the watchdog of KIT_MAIN has the same timer */
	return 0;
}

static void a_handler_may_come_into_reads_and_writes(void **state)
{
	uint8_t out[5000], in[5000];
	uint32_t sent = 0, got = 0;
	int fd[2];

	kit_pair(fd);
	close(disturbed);
	disturbed = fd[1];
	rain(true);
	while (handled < (int)SIGNALS) {
		size_t len = 1 + sent % sizeof(out);

		for (size_t i = 0; i < len; i++)
			out[i] = (uint8_t)((sent + i) % 251);
		assert_int_equal(send(fd[0], out, len, MSG_NOSIGNAL), len);
		sent += (uint32_t)len;
		assert_int_equal(recv(fd[1], in, len, MSG_WAITALL), len);
		for (size_t i = 0; i < len; i++)
			assert_int_equal(in[i], (uint8_t)((got + i) % 251));
		got += (uint32_t)len;
	}
	rain(false);
	close(fd[0]);
	kit_expect_eof(fd[1]);
	close(fd[1]);
}

static void a_handler_may_come_into_accept_connect_and_close(void **state)
{
	int listener = kit_listen(STACK_ADDR, 0);

	rain(true);
	for (int round = 0; round < ROUNDS && handled < (int)SIGNALS; round++) {
		int client = kit_connect(PEER_ADDR, kit_port(listener)), served = accept(listener, NULL, NULL);

		assert_true(served >= 0);
		kit_send(client, "hello");
		kit_expect(served, "hello");
		close(client);
		kit_expect_eof(served);
		close(served);
	}
	rain(false);
	close(listener);
	close(disturbed);
}

static void a_handler_may_come_into_epoll(void **state)
{
	int set = epoll_create1(EPOLL_CLOEXEC), fd[2];
	struct epoll_event event = { .events = EPOLLIN };

	kit_pair(fd);
	assert_int_equal(epoll_ctl(set, EPOLL_CTL_ADD, fd[1], &event), 0);
	rain(true);
	while (handled < (int)SIGNALS) {
		int n;

		event.events = EPOLLIN;
		kit_send(fd[0], "event");
		while ((n = epoll_wait(set, &event, 1, 5000)) < 0)
			assert_int_equal(errno, EINTR); /* whatever the handler wants: as the kernel's */
		assert_int_equal(n, 1);
		kit_expect(fd[1], "event");
		assert_int_equal(epoll_ctl(set, EPOLL_CTL_MOD, fd[1], &event), 0);
	}
	rain(false);
	close(set);
	close(fd[0]);
	close(fd[1]);
	close(disturbed);
}

/* ------------------------------------------------------------------ what a program sees of its handlers */

static siginfo_t last;

static void note(int sig, siginfo_t *info, void *context)
{
	assert_non_null(context);
	last = *info;
	handled++;
}

static void on_simple(int sig)
{
	handled++;
}

static void a_program_sees_the_handlers_it_has_set(void **state)
{
	struct sigaction action = { .sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_NODEFER }, old;

	sigaddset(&action.sa_mask, SIGUSR2);
	assert_int_equal(sigaction(SIGUSR1, &action, &old), 0);
	assert_ptr_equal(old.sa_handler, SIG_DFL);
	assert_int_equal(sigaction(SIGUSR1, NULL, &old), 0);
	assert_ptr_equal(old.sa_sigaction, note);
	assert_int_equal(old.sa_flags & (SA_SIGINFO | SA_NODEFER | SA_RESTART), SA_SIGINFO | SA_NODEFER);
	assert_true(sigismember(&old.sa_mask, SIGUSR2));
	assert_ptr_equal(signal(SIGUSR1, on_simple), (sighandler_t)(void *)note);
	assert_int_equal(sigaction(SIGUSR1, NULL, &old), 0);
	assert_ptr_equal(old.sa_handler, on_simple);
	assert_int_equal(old.sa_flags & (SA_SIGINFO | SA_RESTART), SA_RESTART);
	int (*interrupt)(int, int) = dlsym(RTLD_DEFAULT, "siginterrupt"); /* its header says that there is something better */
	assert_int_equal(interrupt(SIGUSR1, 1), 0);
	assert_int_equal(sigaction(SIGUSR1, NULL, &old), 0);
	assert_ptr_equal(old.sa_handler, on_simple);
	assert_int_equal(old.sa_flags & SA_RESTART, 0);
	assert_ptr_equal(signal(SIGUSR1, SIG_IGN), on_simple);
	assert_ptr_equal(signal(SIGUSR1, SIG_DFL), SIG_IGN);
	assert_errno(sigaction(SIGKILL, &action, NULL), EINVAL);
	assert_errno(sigaction(NSIG + 1, &action, NULL), EINVAL);
	assert_ptr_equal(signal(SIGKILL, on_simple), SIG_ERR);
}

static void a_handler_for_once_is_for_once(void **state)
{
	struct sigaction action = { .sa_handler = on_simple, .sa_flags = (int)SA_RESETHAND }, old;

	handled = 0;
	assert_int_equal(sigaction(SIGCHLD, &action, NULL), 0);
	raise(SIGCHLD);
	assert_int_equal(handled, 1);
	assert_int_equal(sigaction(SIGCHLD, NULL, &old), 0);
	assert_ptr_equal(old.sa_handler, SIG_DFL);
	raise(SIGCHLD);
	assert_int_equal(handled, 1);
}

/* However late a signal comes it is the one that was sent, and none is lost. */
static void what_a_handler_is_told_is_what_was_sent(void **state)
{
	struct sigaction action = { .sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_RESTART };
	pid_t child, parent = getpid();
	int fd = kit_connect(PEER_ADDR, 7);
	sigset_t none;

	handled = 0;
	assert_int_equal(sigaction(SIGRTMIN, &action, NULL), 0);
	child = fork();
	if (!child) {
		for (int i = 1; i <= 2000; i++) {
			while (sigqueue(parent, SIGRTMIN, (union sigval){ .sival_int = i }))
				;
			for (volatile int spin = 0; spin < 2000; spin++)
				;
		}
		_exit(0);
	}
	for (uint64_t until = (uint64_t)time(NULL) + 20; handled < 2000 && (uint64_t)time(NULL) < until;) {
		kit_send(fd, "x");
		kit_expect(fd, "x");
	}
	assert_int_equal(handled, 2000);
	assert_int_equal(last.si_value.sival_int, 2000);
	assert_int_equal(last.si_pid, child);
	assert_int_equal(last.si_signo, SIGRTMIN);
	assert_int_equal(sigprocmask(SIG_SETMASK, NULL, &none), 0);
	assert_false(sigismember(&none, SIGRTMIN) || sigismember(&none, SIGUSR1)); /* nothing stays blocked */
	signal(SIGRTMIN, SIG_DFL);
	close(fd);
}

/* ------------------------------------------------------------------ a call that only looks */

static int closed_fd;
static bool by_poll;
static _Atomic int stage;

static void *blocked_reader(void *arg)
{
	struct pollfd p = { .fd = closed_fd, .events = POLLIN };
	char byte;

	stage = 1;
	if (by_poll)
		(void)poll(&p, 1, -1);
	else
		(void)!read(closed_fd, &byte, 1);
	stage = 2;
	return NULL;
}

/* As the JDK closes a socket another thread waits for: the thread comes back, wherever in the call it is. */
static void a_signal_after_dup2_ends_the_call(void **state)
{
	struct sigaction action = { .sa_handler = on_simple };
	int mark[2];

	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, mark), 0);
	close(mark[1]);
	for (int round = 0; round < 120; round++) {
		int fd[2];
		pthread_t thread;

		kit_pair(fd);
		closed_fd = fd[1];
		by_poll = round % 2;
		stage = 0;
		assert_int_equal(pthread_create(&thread, NULL, blocked_reader, NULL), 0);
		while (!stage)
			sched_yield();
		for (volatile int spin = 0; spin < round * 600; spin++)
			;
		assert_int_equal(dup2(mark[0], closed_fd), closed_fd);
		assert_int_equal(pthread_kill(thread, SIGUSR1), 0);
		for (int ms = 0; stage != 2 && ms < 5000; ms++)
			poll(NULL, 0, 1);
		assert_int_equal(stage, 2);
		assert_int_equal(pthread_join(thread, NULL), 0);
		close(fd[0]);
		close(fd[1]);
	}
	close(mark[0]);
}

/* ------------------------------------------------------------------ cancellation */

static int cancel_type, work, shared_fd[2], shared_listener;

static void *worker(void *arg)
{
	struct epoll_event event = { .events = EPOLLIN };
	char bytes[64] = { 0 };
	int set, was;

	assert_int_equal(pthread_setcanceltype(cancel_type, &was), 0);
	assert_int_equal(was, PTHREAD_CANCEL_DEFERRED);
	assert_int_equal(pthread_setcanceltype(cancel_type, &was), 0);
	assert_int_equal(was, cancel_type);
	set = work == 2 ? epoll_create1(EPOLL_CLOEXEC) : -1;
	for (;;) {
		struct sockaddr_in echo = kit_addr(PEER_ADDR, 7);
		int fd;

		switch (work) {
		case 0:
			(void)!recv(shared_fd[1], bytes, sizeof(bytes), 0);
			break;
		case 1:
			(void)!send(shared_fd[0], bytes, sizeof(bytes), MSG_NOSIGNAL);
			pthread_testcancel();
			break;
		case 2:
			event.events = EPOLLIN | EPOLLET;
			epoll_ctl(set, EPOLL_CTL_ADD, shared_fd[1], &event);
			epoll_wait(set, &event, 1, 1);
			epoll_ctl(set, EPOLL_CTL_DEL, shared_fd[1], NULL);
			break;
		case 3:
			fd = accept(shared_listener, NULL, NULL);
			close(fd);
			break;
		default:
			fd = socket(AF_INET, SOCK_STREAM, 0);
			(void)connect(fd, (struct sockaddr *)&echo, sizeof(echo));
			close(fd);
			pthread_testcancel();
			break;
		}
	}
	return NULL;
}

static void *reader(void *arg)
{
	char bytes[4096];

	while (recv(shared_fd[1], bytes, sizeof(bytes), 0) > 0)
		;
	return NULL;
}

/* Whoever ends where, everybody else goes on with the same sockets. */
static void cancel_many(int type)
{
	struct sockaddr_in echo = kit_addr(PEER_ADDR, 7);

	cancel_type = type;
	for (work = 0; work < 5; work++) {
		pthread_t thread, drain;

		kit_pair(shared_fd);
		shared_listener = kit_listen(STACK_ADDR, 0);
		if (work == 1)
			assert_int_equal(pthread_create(&drain, NULL, reader, NULL), 0);
		for (int i = 0; i < CANCELS; i++) {
			assert_int_equal(pthread_create(&thread, NULL, worker, NULL), 0);
			for (volatile int spin = 0; spin < i * 500; spin++)
				;
			if (work == 0)
				(void)!send(shared_fd[0], "y", 1, 0);
			if (work == 3) {
				int fd = socket(AF_INET, SOCK_STREAM, 0);

				echo.sin_port = htons(kit_port(shared_listener));
				(void)connect(fd, (struct sockaddr *)&echo, sizeof(echo));
				close(fd);
			}
			assert_int_equal(pthread_cancel(thread), 0);
			assert_int_equal(pthread_join(thread, NULL), 0);
		}
		close(shared_listener);
		close(shared_fd[0]);
		if (work == 1)
			assert_int_equal(pthread_join(drain, NULL), 0);
		close(shared_fd[1]);
	}
	set_up(NULL);
	close(disturbed);
	tear_down(NULL);
}

static void a_cancelled_thread_leaves_no_lock(void **state)
{
	cancel_many(PTHREAD_CANCEL_DEFERRED);
}

static void a_thread_cancelled_anywhere_leaves_no_lock(void **state)
{
	cancel_many(PTHREAD_CANCEL_ASYNCHRONOUS);
}

static void *spinner(void *arg)
{
	char byte;

	assert_int_equal(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL), 0);
	(void)!recv(shared_fd[1], &byte, 1, 0);
	for (volatile uint64_t spin = 0;; spin++)
		;
	return NULL;
}

/* The program's own code can still be left anywhere, after a call as before. */
static void a_thread_that_only_computes_can_be_cancelled(void **state)
{
	pthread_t thread;
	char byte;

	kit_pair(shared_fd);
	kit_send(shared_fd[0], "q");
	/* The byte has arrived; when it is read, the thread is about to compute. */
	assert_int_equal(recv(shared_fd[1], &byte, 1, MSG_PEEK), 1);
	assert_int_equal(pthread_create(&thread, NULL, spinner, NULL), 0);
	for (int unread = 1; unread;) {
		unread = recv(shared_fd[1], &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
		sched_yield();
	}
	assert_int_equal(pthread_cancel(thread), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	close(shared_fd[0]);
	kit_expect_eof(shared_fd[1]);
	close(shared_fd[1]);
}

#define RAINED(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
static const struct CMUnitTest tests[] = {
	RAINED(a_handler_may_come_into_reads_and_writes),
	RAINED(a_handler_may_come_into_accept_connect_and_close),
	RAINED(a_handler_may_come_into_epoll),
	cmocka_unit_test(a_program_sees_the_handlers_it_has_set),
	cmocka_unit_test(a_handler_for_once_is_for_once),
	cmocka_unit_test(what_a_handler_is_told_is_what_was_sent),
	cmocka_unit_test(a_signal_after_dup2_ends_the_call),
	cmocka_unit_test(a_cancelled_thread_leaves_no_lock),
	cmocka_unit_test(a_thread_cancelled_anywhere_leaves_no_lock),
	cmocka_unit_test(a_thread_that_only_computes_can_be_cancelled),
};

KIT_MAIN(tests, 1)
