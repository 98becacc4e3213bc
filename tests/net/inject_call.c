/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Has a process make a system call, by a debugger's means, as if somebody had taken it over: inject_call PID NUMBER ARGUMENT... */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

int main(int argc, char **argv)
{
	struct user_regs_struct regs;
	unsigned long long arguments[3] = { 0 };
	int status;
	pid_t pid;

	if (argc < 3)
		return 64;
	pid = (pid_t)atoi(argv[1]);
	for (int i = 3; i < argc && i < 6; i++)
		arguments[i - 3] = strtoull(argv[i], NULL, 0);
	if (ptrace(PTRACE_ATTACH, pid, 0, 0) || waitpid(pid, &status, __WALL) != pid)
		die("attach");
	if (ptrace(PTRACE_GETREGS, pid, 0, &regs))
		die("registers");
	/* Where it stopped there is no code of ours to keep: the call is to be its last. */
	if (ptrace(PTRACE_POKETEXT, pid, (void *)regs.rip, (void *)0x9090909090050full))
		die("code");
	regs.orig_rax = (unsigned long long)-1; /* do not begin an interrupted call again */
	regs.rax = strtoull(argv[2], NULL, 0);
	regs.rdi = arguments[0];
	regs.rsi = arguments[1];
	regs.rdx = arguments[2];
	if (ptrace(PTRACE_SETREGS, pid, 0, &regs))
		die("registers");
	if (ptrace(PTRACE_DETACH, pid, 0, 0))
		die("detach");
	return 0;
}
