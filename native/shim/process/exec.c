/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gazelle/abi.h>

#include "udp/dgram_options.h"
#include "process/exec.h"
#include "process/exec_env.h"
#include "worker/program.h"
#include "core/fdtable.h"
#include "process/snapshot.h"
#include "core/attachment.h"
#include "stream/listen.h"
#include "samehost/children.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"
#include "worker/group.h"
#include "worker/entries.h"
#include "worker/requests.h"
#include "samehost/introduce.h"

#define RECORD_MAGIC 0x6365786561677a67ull
#define CHANNELS_BELOW 64

/* One worker that has an inherited socket. */
struct worker_snapshot {
	uint32_t slot, queue_id;
	int32_t control_fd;
	uint32_t pad;
	uint64_t arena_size;
	uint64_t drop[GZ_SOCKS_MAX / 64]; /* numbers held there that no inherited descriptor stands for */
};

struct fd_snapshot {
	int32_t fd;
	uint32_t sock;
};

struct record {
	uint64_t magic;
	uint32_t abi_version;
	int32_t pid; /* whose sockets these are: children of a program without the library would find a record of its parent */
	uint32_t workers, pairs, socks, fds;
	uint32_t size; /* of it all, with what follows: attachments, pairs, sockets, descriptors */
};

/* Of the exec under way; shim.lock. */
static struct {
	struct record *record;
	int fd;
	uint32_t size;
	struct attachment *passed[GZ_WORKERS_MAX];                 /* with the record's attachments */
	struct attachment *pair[ATTACHMENTS_MAX - GZ_WORKERS_MAX]; /* and its pairs */
	bool channel;                                              /* inherits_channel() */
	bool introduced;                                           /* to the pairs, as a child */
	uint32_t locks;                                            /* inside_open */
} now = { .fd = -1 };

static struct worker_snapshot *workers_of(struct record *record)
{
	return (struct worker_snapshot *)(record + 1);
}

static struct pair_snapshot *pairs_of(struct record *record)
{
	return (struct pair_snapshot *)(workers_of(record) + record->workers);
}

static struct sock_snapshot *socks_of(struct record *record)
{
	return (struct sock_snapshot *)(pairs_of(record) + record->pairs);
}

static struct fd_snapshot *fds_of(struct record *record)
{
	return (struct fd_snapshot *)(socks_of(record) + record->socks);
}

static uint64_t size_of(const struct record *record)
{
	return sizeof(*record) + (uint64_t)record->workers * sizeof(struct worker_snapshot) +
	       (uint64_t)record->pairs * sizeof(struct pair_snapshot) +
	       (uint64_t)record->socks * sizeof(struct sock_snapshot) + (uint64_t)record->fds * sizeof(struct fd_snapshot);
}

/* ------------------------------------------------------------------ before the exec */

static bool inherited(int fd)
{
	int flags = REAL(fcntl)(fd, F_GETFD);

	return flags >= 0 && !(flags & FD_CLOEXEC);
}

/* A socket whose state the new program can take over. */
static bool passable(struct sock *s)
{
	switch (sock_kind(s)) {
	case KIND_STREAM:
		return !gz_load(&s->attachment->dead);
	default:
		return true;
	}
}

static struct sock *next_passed(int *fd)
{
	for (; (*fd = fd_next_sock(*fd)) >= 0; ++*fd) {
		struct sock *s = fd_sock(*fd);

		if (s && passable(s) && inherited(*fd))
			return s;
	}
	return NULL;
}

static bool needs(struct sock *s, uint32_t slot)
{
	if (sock_kind(s) ==
	    KIND_STREAM) /* workers vouch for what is passed between relatives, also where they have no part in it */
		return s->attachment->slot == slot || (s->attachment->pair && slot < GZ_WORKERS_MAX);
	if (sock_kind(s) == KIND_DGRAM)
		return slot < GZ_WORKERS_MAX && s->entries->entry[slot].attachment;
	if (sock_kind(s) != KIND_LISTENER)
		return false;
	/* A program that has connected to us before does so by the same pair again. */
	return slot < GZ_WORKERS_MAX ? s->entries->entry[slot].attachment != NULL
	                             : pair_accepts(gz_load(&shim.attachments[slot]));
}

/* The new program's control socket for one worker, -1 if there is none to be had. */
static int join_worker(struct attachment *a)
{
	int fd;

	if (!a->channel)
		return a->control_fd; /* not claimed by us: let the new program do it */
	lock_take(&a->post);
	request_settle(a);
	fd = program_fork(a);
	lock_give(&a->post);
	return fd < 0 ? -1 : fd;
}

static void keep_pair(struct sock *s, struct sock_snapshot *snapshot)
{
	for (uint32_t i = 0; i < now.record->pairs; i++)
		if (now.pair[i] == s->attachment) {
			snapshot->slot = GZ_WORKERS_MAX + i;
			pairs_of(now.record)[i].keep[s->n % GZ_PAIR_SOCKS / 64] |= 1ull << s->n % 64;
		}
}

static void keep(uint32_t at, uint32_t n)
{
	workers_of(now.record)[at].drop[n / 64] &= ~(1ull << n % 64);
}

/* Enters a socket with the numbers it needs; a worker that could not be introduced to leaves it a dead one. */
static void enter(struct sock *s, struct sock_snapshot *snapshot)
{
	snapshot_take(s, snapshot);
	if (snapshot->kind == KIND_STREAM && s->attachment->pair) {
		snapshot->slot = UINT32_MAX;
		keep_pair(s, snapshot);
		return;
	}
	for (uint32_t i = 0; i < now.record->workers; i++) {
		struct attachment *a = now.passed[i];

		if (snapshot->kind == KIND_STREAM && s->attachment == a) {
			keep(i, s->n);
		} else if ((snapshot->kind == KIND_LISTENER || snapshot->kind == KIND_DGRAM) &&
		           s->entries->entry[a->slot].attachment == a) {
			snapshot->entry[a->slot] = s->entries->entry[a->slot].n;
			keep(i, snapshot->entry[a->slot]);
		}
	}
}

static void pass_worker(struct attachment *a, int control_fd)
{
	struct worker_snapshot *snapshot = &workers_of(now.record)[now.record->workers];

	now.passed[now.record->workers++] = a;
	snapshot->slot = a->slot;
	snapshot->queue_id = a->queue_id;
	snapshot->control_fd = control_fd;
	snapshot->arena_size = a->arena_size;
	for (uint32_t n = 1; n < GZ_SOCKS_MAX; n++)
		if (gz_load(&a->socks[n]))
			snapshot->drop[n / 64] |= 1ull << n % 64;
	for (uint32_t w = 0; a->dropped && w < GZ_SOCKS_MAX / 64; w++)
		snapshot->drop[w] |= a->dropped[w];
}

/*
 * The new program has a UNIX socket by which this one, which makes them, may pass sockets to it later: so it stays one of the
 * program's processes. Looked for where programs have them.
 */
static bool inherits_channel(void)
{
	for (int fd = 0; fd < CHANNELS_BELOW && gz_load(&shim.passes); fd++) {
		socklen_t len = sizeof(int);
		int domain = -1;

		if (!fd_word(fd) && !REAL(getsockopt)(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) && domain == AF_UNIX &&
		    inherited(fd))
			return true;
	}
	return false;
}

static bool needed(uint32_t slot)
{
	struct sock *s;
	int fd = 0;

	if (now.channel && slot < GZ_WORKERS_MAX)
		return true;

	while ((s = next_passed(&fd)) && !needs(s, slot))
		fd++;
	return s;
}

static void pass_workers(void)
{
	WORKER_EACH(a, i)
	{
		int control_fd = needed(i) ? join_worker(a) : -1;

		if (control_fd >= 0)
			pass_worker(a, control_fd);
	}
}

static void pass_pairs(void)
{
	for (uint32_t i = GZ_WORKERS_MAX; i < shim.attachments_end; i++) {
		struct attachment *a = gz_load(&shim.attachments[i]);

		if (!a || !needed(i))
			continue;
		if (!now.introduced)
			pair_before_fork();
		now.introduced = true;
		if (pair_leave(a, &pairs_of(now.record)[now.record->pairs]))
			now.pair[now.record->pairs++] = a;
	}
}

static void pass_socks(uint32_t fds)
{
	struct sock_snapshot *socks = socks_of(now.record);
	struct sock **known = calloc(fds, sizeof(*known)), *s;

	if (!known)
		return; /* the new program has no sockets of the stack, and says so at their first use: ENOTCONN */
	for (int fd = 0; (s = next_passed(&fd)) && now.record->fds < fds; fd++) {
		uint32_t at = now.record->socks;

		for (uint32_t i = 0; gz_load(&s->refs) > 1 && i < now.record->socks; i++)
			if (known[i] == s)
				at = i;
		if (at == now.record->socks) {
			known[now.record->socks++] = s;
			enter(s, &socks[at]);
		}
		/* Behind the sockets, of which there may be as many: moved together when their number is known. */
		struct fd_snapshot *entry = (struct fd_snapshot *)(socks + fds) + now.record->fds++;
		*entry = (struct fd_snapshot){ .fd = fd, .sock = at };
	}
	memmove(fds_of(now.record), socks + fds, now.record->fds * sizeof(struct fd_snapshot));
	free(known);
}

static bool open_record(uint32_t fds)
{
	struct record most = { .workers = shim.workers, .pairs = ATTACHMENTS_MAX - GZ_WORKERS_MAX, .socks = fds, .fds = fds };

	now.size = (uint32_t)size_of(&most);
	now.fd = memfd_create("gazelle-exec", 0);
	if (now.fd < 0)
		return false;
	int high = REAL(fcntl)(now.fd, F_DUPFD, 64); /* out of the way of programs that count on the lowest number */
	if (high >= 0) {
		UNCANCELLED(close, now.fd);
		now.fd = high;
	}
	now.record = ftruncate(now.fd, now.size) ? MAP_FAILED
	                                         : mmap(NULL, now.size, PROT_READ | PROT_WRITE, MAP_SHARED, now.fd, 0);
	if (now.record != MAP_FAILED)
		return true;
	UNCANCELLED(close, now.fd);
	now.fd = -1;
	return false;
}

static void set_cloexec(bool on)
{
	int flags = on ? FD_CLOEXEC : 0;

	for (uint32_t i = 0; i < now.record->workers; i++)
		REAL(fcntl)(workers_of(now.record)[i].control_fd, F_SETFD, flags);
	for (uint32_t i = 0; i < now.record->pairs; i++) {
		const struct pair_snapshot *pair = &pairs_of(now.record)[i];

		REAL(fcntl)(pair->memory_fd, F_SETFD, flags);
		for (uint32_t l = 0; l < pair->members; l++)
			REAL(fcntl)(pair->socket[l].fd, F_SETFD, flags);
	}
}

static void close_record(void)
{
	for (uint32_t i = 0; i < now.record->workers; i++)
		if (workers_of(now.record)[i].control_fd != now.passed[i]->control_fd)
			UNCANCELLED(close, workers_of(now.record)[i].control_fd);
	if (now.introduced)
		pair_after_fork_in_parent();
	now.introduced = false;
	munmap(now.record, now.size);
	UNCANCELLED(close, now.fd);
	now.fd = -1;
}

/* It is to be asked for nothing that it cannot do. */
static char **without_library(char *const envp[])
{
	char **env = exec_env_without(envp);

	return env ? env : (char **)envp;
}

char **exec_prepare(const struct exec_target *target, char *const envp[])
{
	uint32_t fds = 0;
	char **env = NULL;
	bool channel;

	if (envp && exec_env_preloads(envp) && !exec_env_loads(target))
		return without_library(envp);
	if (!shim_active() || !envp)
		return (char **)envp;
	for (int fd = 0; next_passed(&fd); fd++)
		fds++;
	channel = inherits_channel();
	if ((!fds && !channel) || !exec_env_loads(target))
		return (char **)envp;
	shim_lock();
	now.channel = channel;
	if (!open_record(fds))
		goto err_unlock;
	pass_workers();
	pass_pairs();
	pass_socks(fds);
	now.record->magic = RECORD_MAGIC;
	now.record->abi_version = GZ_ABI_VERSION;
	now.record->pid = getpid();
	now.record->size = (uint32_t)size_of(now.record);
	env = exec_env_with(envp, now.fd);
	if (!env)
		goto err_close;
	set_cloexec(false);
	now.locks = inside_open();
	return env;

err_close:
	close_record();
err_unlock:
	shim_unlock();
	return (char **)envp;
}

void exec_failed(char **env, char *const envp[])
{
	int err = errno;

	if (env == (char **)envp)
		return;
	if (exec_env_record(env) >= 0) {
		inside_shut(now.locks);
		set_cloexec(true);
		close_record();
		shim_unlock();
	}
	exec_env_free(env);
	errno = err;
}

/* ------------------------------------------------------------------ after the exec */

static struct attachment *restore_worker(const struct worker_snapshot *snapshot)
{
	struct attachment *a =
		snapshot->slot < shim.workers
			? program_inherit(snapshot->slot, snapshot->queue_id, snapshot->control_fd, snapshot->arena_size)
			: NULL;

	for (uint32_t w = 0; a && w < GZ_SOCKS_MAX / 64; w++)
		for (uint64_t bits = snapshot->drop[w]; bits; bits &= bits - 1)
			program_drop_later(a, w * 64 + (uint32_t)__builtin_ctzll(bits));
	if (a)
		program_tell_dropped(a);
	return a;
}

static struct sock *restore_sock(const struct sock_snapshot *snapshot, struct attachment *const *pairs, uint32_t pair_count)
{
	struct attachment *a = snapshot->slot < shim.workers ? gz_load(&shim.attachments[snapshot->slot]) : NULL;

	if (snapshot->slot >= GZ_WORKERS_MAX && snapshot->slot - GZ_WORKERS_MAX < pair_count)
		a = pairs[snapshot->slot - GZ_WORKERS_MAX];
	return snapshot_restore(snapshot, a);
}

static void restore(struct record *record)
{
	struct sock **socks = calloc(record->socks + 1, sizeof(*socks));
	struct attachment *pairs[ATTACHMENTS_MAX - GZ_WORKERS_MAX];
	uint32_t workers = 0, pair_count = 0;

	if (!socks)
		return;
	for (uint32_t i = 0; i < record->workers; i++)
		workers += restore_worker(&workers_of(record)[i]) != NULL;
	for (; pair_count < record->pairs && pair_count < ATTACHMENTS_MAX - GZ_WORKERS_MAX; pair_count++)
		pairs[pair_count] = introduce_inherited(&pairs_of(record)[pair_count]);
	for (uint32_t i = 0; i < record->socks; i++)
		socks[i] = restore_sock(&socks_of(record)[i], pairs, pair_count);
	for (uint32_t i = 0; i < record->fds; i++) {
		const struct fd_snapshot *snapshot = &fds_of(record)[i];

		if (snapshot->sock >= record->socks || !socks[snapshot->sock])
			continue;
		sock_get(socks[snapshot->sock]);
		fd_put(snapshot->fd, (uintptr_t)socks[snapshot->sock]);
		if (sock_kind(socks[snapshot->sock]) == KIND_DGRAM)
			dgram_options_load(socks[snapshot->sock], snapshot->fd); /* the placeholder has them */
	}
	free(socks);
	/* The program before this exec may share them with other processes. */
	gz_store(&shim.forks, 1);
	gz_store(&shim.missing, shim.workers - workers);
	gz_store(&shim.retry_ns, 0);
	__atomic_store_n(&shim.attached, true, __ATOMIC_RELEASE);
}

/* A descriptor's number in decimal, -1 if it is none. (atoi of a newer C library is a symbol that older ones lack.) */
static int number_of(const char *text)
{
	int number = 0;

	for (; *text >= '0' && *text <= '9' && number < 100000000; text++)
		number = number * 10 + (*text - '0');
	return *text ? -1 : number;
}

void exec_inherit(void)
{
	const char *name = secure_getenv(EXEC_VARIABLE);
	struct record *record;
	struct stat st;
	int fd;

	if (!name)
		return;
	fd = number_of(name);
	unsetenv(EXEC_VARIABLE);
	if (fd < 3 || fstat(fd, &st) || (size_t)st.st_size < sizeof(*record) || st.st_size > UINT32_MAX)
		return;
	/* A copy: what has the record open may change it, or cut it short. */
	record = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (record == MAP_FAILED)
		return;
	if (pread(fd, record, (size_t)st.st_size, 0) != st.st_size)
		record->magic = 0;
	if (record->magic == RECORD_MAGIC && record->abi_version == GZ_ABI_VERSION && record->pid == getpid() &&
	    record->size <= (uint64_t)st.st_size && size_of(record) == record->size) {
		UNCANCELLED(close, fd);
		if (group_inherit())
			restore(record);
	}
	munmap(record, (size_t)st.st_size);
}
