/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "shared/page.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/atomic.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "shared/access.h"
#include "core/clock.h"
#include "core/run_memory.h"
#include "core/worker.h"

#define LOOK_NS 1000000ull /* how long an answer of page_running holds */

/* What we know of another worker's process. */
static struct {
	uint32_t pid;
	int pidfd;
	bool alive;
	uint64_t looked_ns, missing_ns;
} peer[GZ_WORKERS_MAX];

static void page_path(const struct protocol_stack *stack, uint32_t queue_id, char *path, size_t size)
{
	snprintf(path, size, "%s/worker.%u.page", stack->group->run_dir, queue_id);
}

int page_open(struct protocol_stack *stack)
{
	struct gz_worker_page *page;
	char path[160];
	int fd, err = 0;

	page_path(stack, stack->queue_id, path, sizeof(path));
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	err = access_share_file(stack->group, fd);
	if (!err)
		err = reserve_file(fd, 0, sizeof(*page));
	page = err ? MAP_FAILED : mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (!err && page == MAP_FAILED)
		err = -errno;
	close(fd);
	if (err)
		return err;
	gz_store(&page->state, GZ_WORKER_STARTING);
	gz_store(&page->asleep, 0);
	for (uint32_t i = 0; i < sizeof(page->counters) / sizeof(page->counters[0]); i++)
		gz_store(&page->counters[i], 0);
	for (uint32_t i = 0; i < GZ_LISTENERS_MAX; i++)
		gz_store(&page->listeners[i].port_owner, 0);
	for (uint32_t i = 0; i < GZ_APPS_MAX; i++)
		gz_store(&page->apps[i].pid, 0);
	gz_store(&page->apps_end, 0);
	page->magic = GZ_WORKER_MAGIC;
	page->abi_version = GZ_ABI_VERSION;
	page->size = sizeof(*page);
	gz_store(&page->heartbeat_ns, monotonic_ns());
	gz_store(&page->generation, monotonic_ns());
	gz_store_release(&page->pid, (uint32_t)getpid()); /* pairs with page_running: the page above is a new one */
	stack->page = page;
	stack->pages[stack->queue_id] = page;
	for (uint32_t q = 0; q < GZ_WORKERS_MAX; q++)
		peer[q].pidfd = -1;
	return 0;
}

void page_set_state(struct protocol_stack *stack, uint32_t state)
{
	gz_store_release(&stack->page->state, state); /* pairs with page_running: what the state promises is there */
}

void page_beat(struct protocol_stack *stack)
{
	gz_store(&stack->page->heartbeat_ns, stack->now_ns);
}

/* Maps another worker's page once it is there and whole. */
static const struct gz_worker_page *map_peer(struct protocol_stack *stack, uint32_t queue_id)
{
	const struct gz_worker_page *page = MAP_FAILED;
	struct stat st;
	char path[160];
	int fd;

	if (peer[queue_id].missing_ns && stack->now_ns - peer[queue_id].missing_ns < 20 * LOOK_NS)
		return NULL;
	peer[queue_id].missing_ns = stack->now_ns;
	page_path(stack, queue_id, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st) && (size_t)st.st_size >= sizeof(*page))
		page = mmap(NULL, sizeof(*page), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (page == MAP_FAILED)
		return NULL;
	stack->pages[queue_id] = page;
	return page;
}

/* A pidfd of a process that has ended is readable, also before it is reaped; kill(pid, 0) would still find the zombie. */
static bool process_lives(uint32_t queue_id, uint32_t pid)
{
	struct pollfd pfd = { .events = POLLIN };

	if (peer[queue_id].pid != pid) {
		if (peer[queue_id].pidfd >= 0)
			close(peer[queue_id].pidfd);
		peer[queue_id].pid = pid;
		peer[queue_id].pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
	}
	pfd.fd = peer[queue_id].pidfd;
	return pfd.fd >= 0 && poll(&pfd, 1, 0) == 0;
}

bool page_running(struct protocol_stack *stack, uint32_t queue_id)
{
	return page_serving(stack, queue_id) && gz_load_acquire(&stack->pages[queue_id]->state) == GZ_WORKER_RUNNING;
}

bool page_serving(struct protocol_stack *stack, uint32_t queue_id)
{
	const struct gz_worker_page *page = stack->pages[queue_id];
	uint32_t pid, state;

	if (queue_id == stack->queue_id)
		return true;
	if (!page)
		page = map_peer(stack, queue_id);
	if (!page || page->magic != GZ_WORKER_MAGIC)
		return false;
	pid = gz_load_acquire(&page->pid);
	state = gz_load_acquire(&page->state);
	if (!pid || (state != GZ_WORKER_RUNNING && state != GZ_WORKER_DRAINING))
		return false;
	if (pid != peer[queue_id].pid || stack->now_ns - peer[queue_id].looked_ns >= LOOK_NS) {
		peer[queue_id].looked_ns = stack->now_ns;
		peer[queue_id].alive = process_lives(queue_id, pid);
	}
	return peer[queue_id].alive;
}

bool page_is_workers(struct protocol_stack *stack, uint32_t pid)
{
	for (uint32_t q = 0; q < stack->group->tot_queue_num; q++)
		if (page_serving(stack, q) && gz_load(&stack->pages[q]->pid) == pid)
			return true;
	return false;
}
