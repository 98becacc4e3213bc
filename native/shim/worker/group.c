/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "worker/group.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gazelle/abi.h>

#include "core/real.h"
#include "core/shim.h"
#include "worker/attach.h"

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

/* Read from the file by `gazelled check`: which version of the shared memory this library knows. */
static const char abi_mark[] __attribute__((used)) = "gazelle ABI " TEXT(GZ_ABI_VERSION);

static const char *const variables[GROUP_VARIABLES] = {
	[GROUP_PAGE] = "GAZELLED_GROUP",
	[GROUP_FALLBACK] = "GAZELLED_FALLBACK",
	[GROUP_EXPLAIN] = "GAZELLED_EXPLAIN",
};
static char *assignments[GROUP_VARIABLES];

void group_remember(void)
{
	for (uint32_t i = 0; i < GROUP_VARIABLES; i++) {
		const char *value = secure_getenv(variables[i]);

		if (value && !assignments[i] && asprintf(&assignments[i], "%s=%s", variables[i], value) < 0)
			assignments[i] = NULL;
	}
}

const char *group_variable(enum group_variable which)
{
	return variables[which];
}

const char *group_assignment(enum group_variable which)
{
	return assignments[which];
}

static const char *value_of(enum group_variable which)
{
	return assignments[which] ? assignments[which] + strlen(variables[which]) + 1 : NULL;
}

static int map_group(const char *path)
{
	const struct gz_group_page *group;
	struct stat st;
	int fd, err = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || (size_t)st.st_size < sizeof(*group)) {
		err = -EPROTO;
		goto out_close;
	}
	group = mmap(NULL, sizeof(*group), PROT_READ, MAP_SHARED, fd, 0);
	if (group == MAP_FAILED) {
		err = -errno;
		goto out_close;
	}
	if (group->magic != GZ_GROUP_MAGIC || group->abi_version != GZ_ABI_VERSION || group->size != sizeof(*group) ||
	    group->tot_queue_num > GZ_WORKERS_MAX) {
		munmap((void *)group, sizeof(*group));
		err = -EPROTO;
		goto out_close;
	}
	for (uint32_t i = 0; i < group->tot_queue_num; i++) {
		const struct gz_worker_plan *plan = &group->workers[i];

		if (plan->process_index != group->process_index)
			continue;
		shim.queue_id[shim.workers] = plan->queue_id;
		shim.role[shim.workers++] = plan->role;
	}
	shim.group_uid = st.st_uid;
	shim.group = group;
out_close:
	UNCANCELLED(close, fd);
	return err;
}

/* For `gazelled run --explain`, of which this process descends. Without it nothing is missing but the explanation. */
static void open_explain(void)
{
	const char *path = value_of(GROUP_EXPLAIN);
	struct gz_explain *explain;
	struct stat st;
	int fd;

	if (!path)
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	if (!fstat(fd, &st) && (size_t)st.st_size == sizeof(*explain)) {
		explain = mmap(NULL, sizeof(*explain), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		shim.explain = explain == MAP_FAILED ? NULL : explain;
	}
	UNCANCELLED(close, fd);
}

/* First socket of the process. shim.lock held. False: never again; errors that may pass are met by attach_retry. */
static bool open_group(void)
{
	const char *path, *fallback;
	int err;

	group_remember(); /* a program may also have attached itself by setting them */
	path = value_of(GROUP_PAGE);
	fallback = value_of(GROUP_FALLBACK);
	shim.fallback_fail = fallback && !strcmp(fallback, "fail");
	if (!path || !*path) {
		shim_complain("GAZELLED_GROUP is not set", "start programs by `gazelled run`", NULL);
		return false;
	}
	err = map_group(path);
	if (err) {
		shim_complain(err == -EACCES ? "this user may not attach" : path,
		              err == -EPROTO ? "not a group page of this version" : strerror(-err), NULL);
		return false;
	}
	open_explain();
	group_opened();
	return true;
}

bool group_on(void)
{
	if (__atomic_load_n(&shim.disabled, __ATOMIC_ACQUIRE))
		return false;
	/* A socket made while workers are restarted takes its path later, when they are back. */
	if (__atomic_load_n(&shim.attached, __ATOMIC_ACQUIRE))
		return true;
	if (shim.group && now_ns() < gz_load(&shim.retry_ns))
		return false;
	shim_lock();
	if (!shim.group && !open_group())
		__atomic_store_n(&shim.disabled, true, __ATOMIC_RELEASE);
	else if (attach_all())
		__atomic_store_n(&shim.attached, true, __ATOMIC_RELEASE);
	else
		shim_complain("no worker could be attached", *shim.refusal ? shim.refusal : strerror(shim.attach_error),
		              NULL);
	shim_unlock();
	return shim.attached;
}

bool group_inherit(void)
{
	shim_lock();
	if (!open_group())
		shim.disabled = true;
	shim_unlock();
	return !shim.disabled;
}

bool group_known(void)
{
	shim_lock();
	if (!shim.group && !shim.disabled && !open_group())
		__atomic_store_n(&shim.disabled, true, __ATOMIC_RELEASE);
	shim_unlock();
	return shim_active();
}

void group_expect_passing(void)
{
	if (gz_load(&shim.passes))
		return;
	gz_store(&shim.passes, true);
	(void)group_known();
}
