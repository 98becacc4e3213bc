/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "group.h"

static struct gz_group_page page;
static char page_path[sizeof(page.run_dir) + 16];
static const char *program;
static struct worker {
	pid_t pid;
	int stdin_fd; /* closing it ends the worker, also when the test crashes */
} running[4];

static void fail(const char *what)
{
	perror(what);
	exit(99);
}

void group_start_worker(uint32_t i)
{
	char queue[16], line[16];
	int in[2], out[2];

	snprintf(queue, sizeof(queue), "%u", i);
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		fail("pipe");
	running[i].pid = fork();
	if (running[i].pid < 0)
		fail("fork");
	if (!running[i].pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		closefrom(3); /* without a socket of ours the library under test does not go with it */
		execl(program, program, page_path, queue, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	running[i].stdin_fd = in[1];
	if (read(out[0], line, sizeof(line)) < 6)
		fail("fake worker does not start");
	close(out[0]);
}

void group_kill_worker(uint32_t i)
{
	kill(running[i].pid, SIGKILL);
	waitpid(running[i].pid, NULL, 0);
	close(running[i].stdin_fd);
	running[i].pid = 0;
}

void group_hold_worker(uint32_t i)
{
	kill(running[i].pid, SIGSTOP);
	waitpid(running[i].pid, NULL, WUNTRACED);
}

void group_resume_worker(uint32_t i)
{
	kill(running[i].pid, SIGCONT);
}

pid_t group_worker_pid(uint32_t i)
{
	return running[i].pid;
}

const struct gz_worker_page *group_worker_page(uint32_t i)
{
	char path[128];
	void *shown;
	int fd;

	snprintf(path, sizeof(path), "%s/worker.%u.page", page.run_dir, i);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	shown = mmap(NULL, sizeof(struct gz_worker_page), PROT_READ, MAP_SHARED, fd, 0);
	if (shown == MAP_FAILED) {
		perror(path);
		exit(1);
	}
	close(fd);
	return shown;
}

void group_start(const char *fake_worker, uint32_t workers)
{
	char dir[] = "/tmp/gazelle-shim-XXXXXX";
	int fd;

	program = fake_worker;
	if (!mkdtemp(dir))
		fail("mkdtemp");
	page = (struct gz_group_page){ .magic = GZ_GROUP_MAGIC,
		                       .abi_version = GZ_ABI_VERSION,
		                       .size = sizeof(page),
		                       .num_queue = workers,
		                       .tot_queue_num = workers,
		                       .mtu = 1500,
		                       .host_addr_be = inet_addr(STACK_ADDR),
		                       .netmask_be = inet_addr("255.255.255.0") };
	memcpy(page.own[0], (uint8_t[12]){ [10] = 0xff, [11] = 0xff }, 12);
	memcpy((uint8_t *)page.own[0] + 12, &page.host_addr_be, 4);
	snprintf(page.run_dir, sizeof(page.run_dir), "%s", dir);
	for (uint32_t i = 0; i < workers; i++)
		page.workers[i].queue_id = page.workers[i].index = i;
	snprintf(page_path, sizeof(page_path), "%s/group.0", dir);
	fd = open(page_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, &page, sizeof(page)) != (ssize_t)sizeof(page))
		fail(page_path);
	close(fd);
	setenv("GAZELLED_GROUP", page_path, 1);
	setenv("GAZELLED_FALLBACK", "kernel", 1);
	for (uint32_t i = 0; i < workers; i++)
		group_start_worker(i);
}

void group_stop(void)
{
	char path[160];

	for (uint32_t i = 0; i < page.num_queue; i++) {
		if (running[i].pid)
			group_kill_worker(i);
		snprintf(path, sizeof(path), "%s/worker.%u.sock", page.run_dir, i);
		unlink(path);
		snprintf(path, sizeof(path), "%s/worker.%u.page", page.run_dir, i);
		unlink(path);
	}
	unlink(page_path);
	rmdir(page.run_dir);
}
