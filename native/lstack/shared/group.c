/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "shared/group.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/group_page.h>

static bool terminated(const char *s, size_t size)
{
	return memchr(s, 0, size) != NULL;
}

/* What is wrong with it, or NULL. */
static const char *fault(const struct gz_group_page *g, uint32_t queue_id)
{
	const struct gz_worker_plan *w = &g->workers[queue_id];

	if (g->magic != GZ_GROUP_MAGIC)
		return "not a group page";
	if (g->abi_version != GZ_ABI_VERSION || g->size != sizeof(*g))
		return "written for another version";
	if (!g->tot_queue_num || g->tot_queue_num > GZ_WORKERS_MAX || !g->num_queue || g->num_queue > g->tot_queue_num)
		return "number of queues out of range";
	if (queue_id >= g->tot_queue_num)
		return "no such queue";
	if (w->queue_id != queue_id || w->process_index != g->process_index)
		return "the queue belongs to another group";
	if (g->driver > GZ_DRIVER_NONE || g->idle > GZ_IDLE_POLL || w->role > GZ_ROLE_SEND)
		return "driver, idle policy or role out of range";
	if (g->split && g->tot_queue_num % 2)
		return "the send/recv split needs an even number of queues";
	if (g->mtu < 576 || g->mtu > 65535)
		return "MTU out of range";
	if (w->mbufs < 256 || w->mbufs > (1u << 24))
		return "number of mbufs out of range";
	if (!g->nic_read_number || !g->rpc_number || !g->read_connect_number)
		return "a budget per turn is zero";
	if (g->allow_uid_count > GZ_ALLOWED_MAX || g->allow_gid_count > GZ_ALLOWED_MAX)
		return "more users or groups than fit may attach";
	if (!terminated(g->instance, sizeof(g->instance)) || !terminated(g->device, sizeof(g->device)) ||
	    !terminated(g->run_dir, sizeof(g->run_dir)) || !terminated(w->name, sizeof(w->name)) ||
	    !terminated(w->comm, sizeof(w->comm)) || !terminated(w->pool, sizeof(w->pool)) ||
	    !terminated(w->port_args, sizeof(w->port_args)))
		return "a name has no end";
	for (uint32_t i = 0; i < GZ_RETA_SIZE; i++)
		if (g->reta[i] >= g->tot_queue_num || (g->split && g->reta[i] % 2))
			return "the redirection table names a queue that cannot own packets";
	return NULL;
}

int group_open(const char *path, uint32_t queue_id, const struct gz_group_page **group, char *why, uint32_t why_size)
{
	struct stat st;
	const char *what;
	void *p;
	int fd, err;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		err = -errno;
		snprintf(why, why_size, "%s: %s", path, strerror(-err));
		return err;
	}
	err = fstat(fd, &st) ? -errno : 0;
	if (!err && ((size_t)st.st_size < sizeof(**group) || queue_id >= GZ_WORKERS_MAX))
		err = -EINVAL;
	p = err ? MAP_FAILED : mmap(NULL, sizeof(**group), PROT_READ, MAP_SHARED, fd, 0);
	if (!err && p == MAP_FAILED)
		err = -errno;
	close(fd);
	if (err) {
		snprintf(why, why_size, "%s: %s", path, err == -EINVAL ? "too short, or no such queue" : strerror(-err));
		return err;
	}
	what = fault(p, queue_id);
	if (what) {
		snprintf(why, why_size, "%s: %s", path, what);
		munmap(p, sizeof(**group));
		return -EINVAL;
	}
	*group = p;
	return 0;
}
