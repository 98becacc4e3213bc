/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * confined ADDRESS PORT: serves each connection by a child that is made by the bare system call and gives up all it can before it
 * reads: its root, new descriptors, and all system calls but a few. A call that is none of those kills the child.
 */
#include <arpa/inet.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALLOW(number) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static void confine(void)
{
	struct sock_filter filter[] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		                        ALLOW(read),
		                        ALLOW(write),
		                        ALLOW(ppoll),
		                        ALLOW(close),
		                        ALLOW(mmap),
		                        ALLOW(munmap),
		                        ALLOW(madvise),
		                        ALLOW(clock_gettime),
		                        ALLOW(getpid),
		                        ALLOW(exit_group),
		                        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS) };
	struct sock_fprog program = { .len = sizeof(filter) / sizeof(*filter), .filter = filter };
	struct rlimit none = { 0, 0 };

	if (chroot("/proc/self/fdinfo") || setrlimit(RLIMIT_NOFILE, &none) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(2);
}

static void serve(int fd)
{
	char buf[4096];
	ssize_t n;

	confine();
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		if (write(fd, buf, (size_t)n) != n)
			_exit(3);
	_exit(n ? 4 : 0);
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[argc - 1])) };
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	inet_pton(AF_INET, argv[1], &addr.sin_addr);
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) || listen(listener, 16)) {
		perror("listen");
		return 1;
	}
	signal(SIGCHLD, SIG_IGN);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			return 1;
		if (!syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL)) {
			close(listener);
			serve(fd);
		}
		close(fd);
	}
}
