/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A machine with far too much to do: its worker lives, but is late with everything. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "kit.h"

#define BUSY 40              /* processes on the worker's CPU, which go before it */
#define LATE_NS 700000000ull /* more than a program used to wait for */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void on_first_cpu(pid_t pid)
{
	cpu_set_t all, one;
	int cpu = 0;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	assert_int_equal(sched_setaffinity(pid, sizeof(one), &one), 0);
}

static pid_t busy(void)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(20);
	on_first_cpu(0);
	for (;;)
		;
}

/* How late the worker is now: CPU time of SCHED_IDLE comes when nobody else wants any. */
static void starve(pid_t worker, pid_t *all)
{
	struct sched_param none = { 0 };

	on_first_cpu(worker);
	assert_int_equal(sched_setscheduler(worker, SCHED_IDLE, &none), 0);
	for (int i = 0; i < BUSY; i++)
		assert_true((all[i] = busy()) > 0);
}

static void feed(pid_t worker, const pid_t *all)
{
	struct sched_param none = { 0 };

	for (int i = 0; i < BUSY; i++) {
		kill(all[i], SIGKILL);
		waitpid(all[i], NULL, 0);
	}
	assert_int_equal(sched_setscheduler(worker, SCHED_OTHER, &none), 0);
}

/* The program's first socket. Whether it was late or not, it is the stack's; and if it was, it says so. */
static void a_worker_that_waits_for_a_cpu_is_waited_for(void **state)
{
	pid_t all[BUSY], worker = group_worker_pid(0), feeder;
	char said[256] = "", name[] = "/tmp/gazelle-patience-XXXXXX";
	int text = mkstemp(name), saved = dup(2), fd;
	struct sockaddr_in in = kit_addr(PEER_ADDR, 7);
	uint64_t from;

	unlink(name);
	starve(worker, all);
	feeder = fork(); /* it is hungry for so long, and not longer */
	if (!feeder) {
		struct timespec late = { .tv_nsec = LATE_NS };
		struct sched_param none = { 0 };

		nanosleep(&late, NULL);
		for (int i = 0; i < BUSY; i++)
			kill(all[i], SIGKILL);
		_exit(sched_setscheduler(worker, SCHED_OTHER, &none) ? 1 : 0);
	}
	dup2(text, 2);
	from = now_ns();
	fd = socket(AF_INET, SOCK_STREAM, 0);
	dup2(saved, 2);
	from = now_ns() - from;
	feed(worker, all);
	waitpid(feeder, NULL, 0);
	assert_true(from < 5000000000ull);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	kit_send(fd, "here");
	kit_expect(fd, "here");
	(void)!pread(text, said, sizeof(said) - 1, 0);
	assert_null(strstr(said, "the kernel serves"));
	if (from > 550000000ull)
		assert_non_null(strstr(said, "waits for a CPU"));
	close(fd);
	close(text);
	close(saved);
}

/* One that is stopped, or does not answer while it could, is not. */
static void a_worker_that_could_answer_is_not(void **state)
{
	struct sockaddr_in in = kit_addr(PEER_ADDR, 7);
	int fd = kit_connect(PEER_ADDR, 7), status;
	pid_t child;

	group_hold_worker(0);
	child = fork();
	if (!child) {
		uint64_t from = now_ns();
		int another = socket(AF_INET, SOCK_STREAM, 0);

		(void)connect(another, (struct sockaddr *)&in, sizeof(in));
		_exit(now_ns() - from > 4000000000ull);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	group_resume_worker(0);
	kit_send(fd, "on");
	kit_expect(fd, "on");
	close(fd);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(a_worker_that_waits_for_a_cpu_is_waited_for),
	cmocka_unit_test(a_worker_that_could_answer_is_not),
};

KIT_MAIN(tests, 1)
