/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Stands in for lstack where the supervisor is under test: keeps the contract (names, CPU, page, heartbeat, ready word,
 * SIGTERM) and opens no port. $FAKE_LSTACK/<queue_id>, read at the start, makes it break the contract instead:
 *
 *   fail TEXT    says that it cannot start, and why
 *   mute         never says anything
 *   crash        dies before it is ready
 *   die MS       dies that long after it was ready
 *   hang         stops beating once it is ready
 *   stubborn     does not leave at SIGTERM
 *   misnamed     has another comm than planned
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/atomic.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "shared/abi_dump.h"
#include "queue_lock.h"

static volatile sig_atomic_t leave;

static void on_sigterm(int number)
{
	(void)number;
	leave = 1;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void *map(const char *path, int flags, size_t size)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);
	void *p = MAP_FAILED;

	if (fd >= 0 && (!(flags & O_CREAT) || !ftruncate(fd, (off_t)size)))
		p = mmap(NULL, size, flags & O_RDWR ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		fprintf(stderr, "fake lstack: %s: %s\n", path, strerror(errno));
		exit(69);
	}
	close(fd);
	return p;
}

static void behaviour(uint32_t queue_id, char *what, size_t size)
{
	const char *dir = getenv("FAKE_LSTACK");
	char path[256];
	FILE *file;

	what[0] = 0;
	if (!dir)
		return;
	snprintf(path, sizeof(path), "%s/%u", dir, queue_id);
	file = fopen(path, "re");
	if (!file)
		return;
	if (!fgets(what, (int)size, file))
		what[0] = 0;
	what[strcspn(what, "\n")] = 0;
	fclose(file);
}

static struct gz_worker_page *make_page(const struct gz_group_page *group, uint32_t queue_id)
{
	struct gz_worker_page *page;
	char path[160];

	snprintf(path, sizeof(path), "%s/worker.%u.page", group->run_dir, queue_id);
	page = map(path, O_RDWR | O_CREAT, sizeof(*page));
	page->magic = GZ_WORKER_MAGIC;
	page->abi_version = GZ_ABI_VERSION;
	page->size = sizeof(*page);
	gz_store(&page->pid, (uint32_t)getpid());
	gz_store(&page->generation, now_ns());
	gz_store(&page->heartbeat_ns, now_ns());
	gz_store(&page->state, GZ_WORKER_RUNNING);
	return page;
}

static void bind_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		perror("fake lstack: sched_setaffinity");
}

static void say(int fd, const char *word)
{
	if (write(fd, word, strlen(word)) < 0)
		perror("fake lstack: ready-fd");
	close(fd);
}

int main(int argc, char **argv)
{
	const struct timespec beat = { .tv_nsec = 20 * 1000 * 1000 };
	const struct gz_group_page *group;
	struct gz_worker_page *page;
	uint32_t queue_id;
	uint64_t die = 0;
	char what[256], word[300];
	int fd;

	if (argc == 2 && !strcmp(argv[1], "--abi")) {
		abi_dump();
		return 0;
	}
	if (argc != 7 || strcmp(argv[1], "--group") || strcmp(argv[3], "--queue") || strcmp(argv[5], "--ready-fd"))
		return 64;
	group = map(argv[2], O_RDONLY, sizeof(*group));
	queue_id = (uint32_t)atoi(argv[4]);
	fd = atoi(argv[6]);
	behaviour(queue_id, what, sizeof(what));
	fprintf(stderr, "fake lstack of queue %u: %s\n", queue_id, what[0] ? what : "as it should");
	if (group->magic != GZ_GROUP_MAGIC || strcmp(argv[0], group->workers[queue_id].name))
		return 69;
	if (queue_lock(group->run_dir, queue_id)) {
		say(fd, "failed: another worker serves it\n");
		return 69;
	}
	if (!strcmp(what, "crash"))
		raise(SIGKILL);
	if (!strncmp(what, "fail ", 5)) {
		snprintf(word, sizeof(word), "failed: %s\n", what + 5);
		say(fd, word);
		return 69;
	}
	signal(SIGTERM, strcmp(what, "stubborn") ? on_sigterm : SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_NAME, strcmp(what, "misnamed") ? group->workers[queue_id].comm : "somebody");
	if (group->workers[queue_id].cpu >= 0)
		bind_to(group->workers[queue_id].cpu);
	page = make_page(group, queue_id);
	if (strcmp(what, "mute"))
		say(fd, "ready\n");
	if (!strncmp(what, "die ", 4))
		die = now_ns() + strtoull(what + 4, NULL, 10) * 1000000ull;
	while (!leave) {
		if (die && now_ns() >= die)
			raise(SIGKILL);
		if (strcmp(what, "hang"))
			gz_store(&page->heartbeat_ns, now_ns());
		nanosleep(&beat, NULL);
	}
	return 0;
}
