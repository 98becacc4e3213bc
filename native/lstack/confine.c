/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The list is what a tracer sees of workers under every test, and what the C library may call instead. An attacker who takes a
 * worker over, by a packet or by shared memory, finds nothing on it that starts a program, makes a socket that reaches out,
 * writes a file, signals or reads another process, or makes memory executable.
 */
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WRITES (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)
#define RULE_LENGTH 5 /* instructions of the longest one */

enum check { ANY, CLEAR, EQUAL }; /* CLEAR: no bit of `value` in the argument */

struct rule {
	uint32_t number;
	enum check check;
	uint32_t argument;
	uint32_t value;
};

static const struct rule serving[] = {
	/* packets, bells, sleep */
	{ SYS_readv, ANY, 0, 0 },
	{ SYS_writev, ANY, 0, 0 },
	{ SYS_poll, ANY, 0, 0 },
	{ SYS_epoll_wait, ANY, 0, 0 },
	{ SYS_epoll_pwait, ANY, 0, 0 },
	{ SYS_ppoll, ANY, 0, 0 },
	{ SYS_sendto, ANY, 0, 0 },
	{ SYS_recvfrom, ANY, 0, 0 },
	{ SYS_sendmsg, ANY, 0, 0 },
	{ SYS_recvmsg, ANY, 0, 0 },
	{ SYS_read, ANY, 0, 0 },
	{ SYS_write, ANY, 0, 0 },
	{ SYS_sched_yield, ANY, 0, 0 },
	{ SYS_sched_setscheduler, EQUAL, 0, 0 }, /* itself */
	{ SYS_futex, ANY, 0, 0 },
	{ SYS_clock_gettime, ANY, 0, 0 },
	{ SYS_clock_nanosleep, ANY, 0, 0 },
	{ SYS_nanosleep, ANY, 0, 0 },
	{ SYS_getcpu, ANY, 0, 0 },
	{ SYS_timerfd_settime, ANY, 0, 0 },
	/* programs that come and go: accepted and introduced to each other, never called */
	{ SYS_accept4, ANY, 0, 0 },
	{ SYS_epoll_ctl, ANY, 0, 0 },
	{ SYS_getsockopt, ANY, 0, 0 },
	{ SYS_getsockname, ANY, 0, 0 },
	{ SYS_getpeername, ANY, 0, 0 },
	{ SYS_setsockopt, EQUAL, 1, SOL_SOCKET },
	{ SYS_shutdown, ANY, 0, 0 },
	{ SYS_socketpair, EQUAL, 0, AF_UNIX },
	{ SYS_pidfd_open, ANY, 0, 0 }, /* to see that a process has ended; to signal it is another call */
	{ SYS_close, ANY, 0, 0 },
	/* memory, shared and own */
	{ SYS_memfd_create, ANY, 0, 0 },
	{ SYS_ftruncate, ANY, 0, 0 },
	{ SYS_fallocate, ANY, 0, 0 },
	{ SYS_fcntl, EQUAL, 1, F_ADD_SEALS }, /* not F_SETOWN, which would have the kernel signal others for us */
	{ SYS_fcntl, EQUAL, 1, F_GET_SEALS },
	{ SYS_fcntl, EQUAL, 1, F_GETFL },
	{ SYS_fcntl, EQUAL, 1, F_GETFD },
	{ SYS_fcntl, EQUAL, 1, F_SETFD },
	{ SYS_fcntl, EQUAL, 1, F_DUPFD_CLOEXEC },
	{ SYS_mmap, CLEAR, 2, PROT_EXEC },
	{ SYS_mprotect, CLEAR, 2, PROT_EXEC },
	{ SYS_munmap, ANY, 0, 0 },
	{ SYS_mremap, ANY, 0, 0 },
	{ SYS_madvise, ANY, 0, 0 },
	{ SYS_brk, ANY, 0, 0 },
	/* files: pages of other workers, and the log */
	{ SYS_openat, CLEAR, 2, WRITES },
	{ SYS_fstat, ANY, 0, 0 },
	{ SYS_newfstatat, ANY, 0, 0 },
	{ SYS_lseek, ANY, 0, 0 },
	{ SYS_pread64, ANY, 0, 0 },
	/* itself */
	{ SYS_getpid, ANY, 0, 0 },
	{ SYS_gettid, ANY, 0, 0 },
	{ SYS_getrandom, ANY, 0, 0 },
	{ SYS_sched_getaffinity, ANY, 0, 0 },
	{ SYS_rt_sigprocmask, ANY, 0, 0 },
	{ SYS_rt_sigreturn, ANY, 0, 0 },
	{ SYS_restart_syscall, ANY, 0, 0 },
	{ SYS_exit, ANY, 0, 0 },
	{ SYS_exit_group, ANY, 0, 0 },
};

/* Registers and interrupts of a device by VFIO or UIO. */
static const struct rule with_pci[] = {
	{ SYS_ioctl, ANY, 0, 0 },
	{ SYS_pwrite64, ANY, 0, 0 },
};

struct program {
	struct sock_filter code[8 + (sizeof(serving) + sizeof(with_pci)) / sizeof(struct rule) * RULE_LENGTH + RULE_LENGTH];
	unsigned short length;
};

static void add(struct program *program, struct sock_filter instruction)
{
	program->code[program->length++] = instruction;
}

static void load(struct program *program, size_t offset)
{
	add(program, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

/* Allows one call. The number is loaded before, and again after: several rules may be about one call. */
static void add_rule(struct program *program, const struct rule *rule)
{
	const struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);

	if (rule->check == ANY) {
		add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rule->number, 0, 1));
		add(program, allow);
		return;
	}
	add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rule->number, 0, 4));
	load(program, offsetof(struct seccomp_data, args) + 8 * rule->argument); /* the lower half: all of an int */
	if (rule->check == CLEAR)
		add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, rule->value, 1, 0));
	else
		add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rule->value, 0, 1));
	add(program, allow);
	load(program, offsetof(struct seccomp_data, nr));
}

static void add_rules(struct program *program, const struct rule *rules, size_t count)
{
	for (size_t i = 0; i < count; i++)
		add_rule(program, &rules[i]);
}

/*
 * Says which call it was, then makes one that is not allowed either: as this signal is blocked in its own handler, that ends the
 * process by SIGSYS. Nothing of the C library that may hold a lock: the call may have been its own.
 */
static void on_forbidden(int number, siginfo_t *info, void *context)
{
	const greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	char line[160];
	int n;

	(void)number;
	n = snprintf(line, sizeof(line), "system call %d (0x%llx, 0x%llx, 0x%llx) is none of a worker's: the worker ends\n",
	             info->si_syscall, regs[REG_RDI], regs[REG_RSI], regs[REG_RDX]);
	(void)!write(STDERR_FILENO, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1);
	syscall(SYS_execve, NULL, NULL, NULL);
	_exit(128 + SIGSYS);
}

int confine(bool pci)
{
	struct sigaction action = { .sa_sigaction = on_forbidden, .sa_flags = SA_SIGINFO };
	static struct program program;                                        /* too large for a stack */
	const struct rule own = { SYS_tgkill, EQUAL, 0, (uint32_t)getpid() }; /* abort() */
	struct sock_fprog filter = { .filter = program.code };
	long err;

	load(&program, offsetof(struct seccomp_data, arch));
	add(&program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0));
	add(&program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
	load(&program, offsetof(struct seccomp_data, nr)); /* of the x32 ABI: none is equal to one of ours */
	add_rules(&program, serving, sizeof(serving) / sizeof(serving[0]));
	add_rule(&program, &own);
	if (pci)
		add_rules(&program, with_pci, sizeof(with_pci) / sizeof(with_pci[0]));
	add(&program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
	filter.len = program.length;
	if (sigaction(SIGSYS, &action, NULL))
		return -errno;
	/* All threads: DPDK has some. It answers with the number of one that cannot follow, if there is. */
	err = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
	return err < 0 ? -errno : err ? -ESRCH : 0;
}
