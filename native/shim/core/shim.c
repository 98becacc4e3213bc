/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gazelle/abi.h>

#include "worker/attach.h"
#include "process/fork.h"
#include "worker/attachment.h"
#include "core/real.h"
#include "core/shim.h"

struct shim shim;
static int cancel_state; /* of who holds shim.lock, before that */

void shim_lock(void)
{
	int state;

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	lock_take(&shim.lock);
	cancel_state = state;
}

bool shim_try_lock(void)
{
	int state;

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	if (lock_try(&shim.lock)) {
		cancel_state = state;
		return true;
	}
	(void)pthread_setcancelstate(state, NULL);
	return false;
}

void shim_unlock(void)
{
	int state = cancel_state;

	lock_give(&shim.lock);
	(void)pthread_setcancelstate(state, NULL);
}

/* Said once per process: a program that is not accelerated should not be so unnoticed, nor drown its own output. */
void shim_complain(const char *what, const char *detail, const char *so)
{
	char text[256];
	int n;

	if (shim.complained)
		return;
	shim.complained = true;
	if (!so)
		so = shim.fallback_fail ? "sockets are refused (--fallback fail)" : "the kernel serves this program";
	n = snprintf(text, sizeof(text), "liblstack: %s%s%s; %s\n", what, detail ? ": " : "", detail ? detail : "", so);
	if (n > 0)
		(void)!REAL(write)(STDERR_FILENO, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
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
	const char *path = secure_getenv("GAZELLED_EXPLAIN");
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
	const char *path = secure_getenv("GAZELLED_GROUP"), *fallback = secure_getenv("GAZELLED_FALLBACK");
	int err;

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
	fork_prepare_library();
	return true;
}

bool shim_on(void)
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

void shim_count_paired(int by)
{
	struct attachment *a = gz_load_acquire(&shim.attachments[0]);

	gz_add(&shim.paired, (uint32_t)by);
	if (a && a->channel)
		gz_store(&a->channel->pair_sockets, gz_load(&shim.paired));
}

void shim_count_refused(void)
{
	struct attachment *a = gz_load_acquire(&shim.attachments[0]);

	if (a && a->channel)
		gz_add(&a->channel->pairs_refused, 1);
}

bool shim_inherit(void)
{
	shim_lock();
	if (!open_group())
		shim.disabled = true;
	shim_unlock();
	return !shim.disabled;
}

void shim_expect_passing(void)
{
	if (gz_load(&shim.passes))
		return;
	gz_store(&shim.passes, true);
	shim_lock();
	if (!shim.group && !shim.disabled && !open_group())
		__atomic_store_n(&shim.disabled, true, __ATOMIC_RELEASE);
	shim_unlock();
}

void shim_refused(const char *why)
{
	struct gz_explain *explain = shim.explain;
	uint32_t none = 0;

	snprintf(shim.refusal, sizeof(shim.refusal), "%s", why);
	if (!explain || gz_load(&explain->refused) || !gz_cas(&explain->refused, &none, 1))
		return;
	strncpy(explain->why, why, sizeof(explain->why) - 1);
	gz_store_release(&explain->refused, 2); /* the words are there */
}

void shim_explain(enum gz_explained kind)
{
	if (__builtin_expect(shim.explain != NULL, 0))
		gz_add(&shim.explain->accelerated[kind], 1);
}

void shim_count_kernel(enum gz_kernel_reason reason, int by)
{
	struct attachment *a;

	if (!shim.group || reason >= GZ_KERNEL_REASONS)
		return;
	gz_add(&shim.kernel[reason], (uint32_t)by);
	if (shim.explain && by > 0)
		gz_add(&shim.explain->kernel[reason], (uint32_t)by);
	/* The first worker shows them; it copies them to its page. Two threads may store out of order: a gauge, right again next time. */
	a = gz_load_acquire(&shim.attachments[0]);
	if (a && a->channel)
		gz_store(&a->channel->kernel_sockets[reason], gz_load(&shim.kernel[reason]));
}
