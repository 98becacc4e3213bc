/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The list of system calls: what is on it works, what is not ends the process by SIGSYS with its number in the log. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "confine.h"

struct call {
	const char *what;
	long number;
	long argument[4];
};

static char *const none[] = { NULL };

/* Makes a call in a confined child; its stderr comes into `said`. Returns the child's status as wait() has it. */
static int confined(const struct call *call, bool pci, char *said, size_t size)
{
	int log[2], status;
	ssize_t n, at = 0;
	pid_t child;

	assert_int_equal(pipe(log), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		dup2(log[1], STDERR_FILENO);
		if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || confine(pci))
			_exit(99);
		syscall(call->number, call->argument[0], call->argument[1], call->argument[2], call->argument[3]);
		_exit(0);
	}
	close(log[1]);
	while ((n = read(log[0], said + at, size - 1 - (size_t)at)) > 0)
		at += n;
	said[at] = 0;
	close(log[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static void what_no_worker_does_ends_it_and_is_named(void **state)
{
	const long path = (long)"/tmp/gz-confine-never", shell = (long)"/bin/true";
	const struct call calls[] = {
		{ "start a program", SYS_execve, { shell, (long)none, (long)none } },
		{ "fork", SYS_fork, { 0 } },
		{ "make a thread or process", SYS_clone, { SIGCHLD } },
		{ "make one the new way", SYS_clone3, { 0 } },
		{ "trace", SYS_ptrace, { PTRACE_ATTACH, 1 } },
		{ "read another's memory", SYS_process_vm_readv, { 1 } },
		{ "signal another", SYS_kill, { 1, 0 } },
		{ "signal a thread of another", SYS_tgkill, { 1, 1, 0 } },
		{ "signal by descriptor", SYS_pidfd_send_signal, { 0, 0 } },
		{ "take another's descriptor", SYS_pidfd_getfd, { 0, 0 } },
		{ "have the kernel signal another", SYS_fcntl, { 0, F_SETOWN, 1 } },
		{ "reach out", SYS_socket, { AF_INET, SOCK_STREAM } },
		{ "reach out by UNIX", SYS_socket, { AF_UNIX, SOCK_STREAM } },
		{ "connect", SYS_connect, { 0 } },
		{ "listen", SYS_bind, { 0 } },
		{ "a pair of another kind", SYS_socketpair, { AF_TIPC, SOCK_STREAM } },
		{ "write a file", SYS_openat, { AT_FDCWD, path, O_WRONLY } },
		{ "read and write a file", SYS_openat, { AT_FDCWD, path, O_RDWR } },
		{ "make a file", SYS_openat, { AT_FDCWD, path, O_RDONLY | O_CREAT, 0600 } },
		{ "make a nameless file", SYS_openat, { AT_FDCWD, (long)"/tmp", O_TMPFILE | O_RDWR, 0600 } },
		{ "open the old way", SYS_open, { path, O_RDONLY } },
		{ "remove a file", SYS_unlink, { path } },
		{ "change a file's mode", SYS_chmod, { path, 0 } },
		{ "executable memory", SYS_mmap, { 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS } },
		{ "memory made executable", SYS_mprotect, { 0, 0, PROT_EXEC } },
		{ "another user", SYS_setuid, { 0 } },
		{ "a namespace", SYS_unshare, { 0 } },
		{ "a program in the kernel", SYS_bpf, { 0 } },
		{ "calls behind our back", SYS_io_uring_setup, { 1, 0 } },
		{ "a device", SYS_ioctl, { 0 } },
		{ "another handler", SYS_rt_sigaction, { SIGSYS, 0, 0, 8 } },
	};
	char said[512], number[32];

	(void)state;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		int status = confined(&calls[i], false, said, sizeof(said));

		snprintf(number, sizeof(number), "system call %ld (", calls[i].number);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS || !strstr(said, number))
			fail_msg("to %s: status %#x, it said: %s", calls[i].what, (unsigned int)status, said);
	}
}

static void what_workers_do_is_theirs_to_do(void **state)
{
	const long path = (long)"/dev/null";
	const struct call calls[] = {
		{ "open to read", SYS_openat, { AT_FDCWD, path, O_RDONLY | O_CLOEXEC } },
		{ "a member socket", SYS_socketpair, { AF_UNIX, SOCK_SEQPACKET, 0, 0 } },
		{ "memory", SYS_mmap, { 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS } },
		{ "seals", SYS_fcntl, { 0, F_ADD_SEALS, F_SEAL_SHRINK } },
		{ "a place among the CPU's", SYS_sched_setscheduler, { 0, 0, 0 } },
		{ "hear of a death", SYS_pidfd_open, { 1, 0 } },
	};
	char said[512];

	(void)state;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		int status = confined(&calls[i], false, said, sizeof(said));

		if (status)
			fail_msg("%s: status %#x, it said: %s", calls[i].what, (unsigned int)status, said);
	}
	const struct call device = { "a device's interrupts", SYS_ioctl, { 0 } };
	assert_int_equal(confined(&device, true, said, sizeof(said)), 0);
}

/* Its own death is a right of a worker: an assertion that fails shows as what it is. */
static void an_abort_is_an_abort(void **state)
{
	int status;
	pid_t child = fork();

	(void)state;
	if (!child) {
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || confine(false))
			_exit(99);
		abort();
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_no_worker_does_ends_it_and_is_named),
		cmocka_unit_test(what_workers_do_is_theirs_to_do),
		cmocka_unit_test(an_abort_is_an_abort),
	};
	return cmocka_run_group_tests_name("confine", tests, NULL, NULL);
}
