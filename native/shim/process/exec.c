/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/api.h"
#include "udp/dgram_options.h"
#include "process/exec.h"
#include "worker/program.h"
#include "core/fdtable.h"
#include "process/image.h"
#include "worker/link.h"
#include "stream/listen.h"
#include "samehost/pair.h"
#include "core/real.h"
#include "core/shim.h"
#include "core/sock.h"

#define RECORD_MAGIC 0x6365786561677a67ull
#define NAME_ROOM sizeof(EXEC_VARIABLE "=2147483647")

/* One worker that has an inherited socket. */
struct image_link {
	uint32_t slot, queue_id;
	int32_t control_fd;
	uint32_t pad;
	uint64_t arena_size;
	uint64_t drop[GZ_SOCKS_MAX / 64]; /* numbers held there that no inherited descriptor stands for */
};

struct image_fd {
	int32_t fd;
	uint32_t sock;
};

struct record {
	uint64_t magic;
	uint32_t abi_version;
	int32_t pid; /* whose sockets these are: children of an image without us would find a record of its parent */
	uint32_t links, pairs, socks, fds;
	uint32_t size; /* of it all, with what follows: links, pairs, sockets, descriptors */
};

/* Of the exec under way; shim.lock. */
static struct {
	struct record *record;
	int fd;
	uint32_t size;
	struct link *passed[GZ_WORKERS_MAX];            /* with the record's links */
	struct link *pair[SHIM_LINKS - GZ_WORKERS_MAX]; /* and its pairs */
	bool introduced;                                /* to the pairs, as a child */
	uint32_t locks;                                 /* inside_open */
} now = { .fd = -1 };

static struct image_link *links_of(struct record *record)
{
	return (struct image_link *)(record + 1);
}

static struct pair_image *pairs_of(struct record *record)
{
	return (struct pair_image *)(links_of(record) + record->links);
}

static struct image_sock *socks_of(struct record *record)
{
	return (struct image_sock *)(pairs_of(record) + record->pairs);
}

static struct image_fd *fds_of(struct record *record)
{
	return (struct image_fd *)(socks_of(record) + record->socks);
}

static uint64_t size_of(const struct record *record)
{
	return sizeof(*record) + (uint64_t)record->links * sizeof(struct image_link) +
	       (uint64_t)record->pairs * sizeof(struct pair_image) +
	       (uint64_t)record->socks * sizeof(struct image_sock) + (uint64_t)record->fds * sizeof(struct image_fd);
}

/* ------------------------------------------------------------------ the old image */

static bool inherited(int fd)
{
	int flags = REAL(fcntl)(fd, F_GETFD);

	return flags >= 0 && !(flags & FD_CLOEXEC);
}

/* A socket whose state the new image can take over. */
static bool passable(struct sock *s)
{
	switch (sock_kind(s)) {
	case KIND_STREAM:
		return !gz_load(&s->link->dead);
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
		return s->link->slot == slot || (s->link->pair && slot < GZ_WORKERS_MAX);
	if (sock_kind(s) == KIND_DGRAM)
		return slot < GZ_WORKERS_MAX && s->listener->entry[slot].link;
	if (sock_kind(s) != KIND_LISTENER)
		return false;
	/* Who has connected to us before does so by the same pair again. */
	return slot < GZ_WORKERS_MAX ? s->listener->entry[slot].link != NULL : pair_accepts(gz_load(&shim.links[slot]));
}

/* The new image's control socket for one worker, -1 if there is none to be had. */
static int introduce(struct link *link)
{
	int fd;

	if (!link->channel)
		return link->control_fd; /* not claimed by us: let the new image do it */
	lock_take(&link->post);
	link_settle(link);
	fd = program_fork(link);
	lock_give(&link->post);
	return fd < 0 ? -1 : fd;
}

static void keep_pair(struct sock *s, struct image_sock *image)
{
	for (uint32_t i = 0; i < now.record->pairs; i++)
		if (now.pair[i] == s->link) {
			image->slot = GZ_WORKERS_MAX + i;
			pairs_of(now.record)[i].keep[s->n % GZ_PAIR_SOCKS / 64] |= 1ull << s->n % 64;
		}
}

static void keep(uint32_t at, uint32_t n)
{
	links_of(now.record)[at].drop[n / 64] &= ~(1ull << n % 64);
}

/* Enters a socket with the numbers it needs; a worker that could not be introduced to leaves it a dead one. */
static void enter(struct sock *s, struct image_sock *image)
{
	image_of(s, image);
	if (image->kind == KIND_STREAM && s->link->pair) {
		image->slot = UINT32_MAX;
		keep_pair(s, image);
		return;
	}
	for (uint32_t i = 0; i < now.record->links; i++) {
		struct link *link = now.passed[i];

		if (image->kind == KIND_STREAM && s->link == link) {
			keep(i, s->n);
		} else if ((image->kind == KIND_LISTENER || image->kind == KIND_DGRAM) &&
		           s->listener->entry[link->slot].link == link) {
			image->entry[link->slot] = s->listener->entry[link->slot].n;
			keep(i, image->entry[link->slot]);
		}
	}
}

static void pass_link(struct link *link, int control_fd)
{
	struct image_link *image = &links_of(now.record)[now.record->links];

	now.passed[now.record->links++] = link;
	image->slot = link->slot;
	image->queue_id = link->queue_id;
	image->control_fd = control_fd;
	image->arena_size = link->arena_size;
	for (uint32_t n = 1; n < GZ_SOCKS_MAX; n++)
		if (gz_load(&link->socks[n]))
			image->drop[n / 64] |= 1ull << n % 64;
	for (uint32_t w = 0; link->dropped && w < GZ_SOCKS_MAX / 64; w++)
		image->drop[w] |= link->dropped[w];
}

static bool needed(uint32_t slot)
{
	struct sock *s;
	int fd = 0;

	while ((s = next_passed(&fd)) && !needs(s, slot))
		fd++;
	return s;
}

static void pass_links(void)
{
	WORKER_EACH(link, i)
	{
		int control_fd = needed(i) ? introduce(link) : -1;

		if (control_fd >= 0)
			pass_link(link, control_fd);
	}
}

static void pass_pairs(void)
{
	for (uint32_t i = GZ_WORKERS_MAX; i < shim.links_end; i++) {
		struct link *link = gz_load(&shim.links[i]);

		if (!link || !needed(i))
			continue;
		if (!now.introduced)
			pair_before_fork();
		now.introduced = true;
		if (pair_leave(link, &pairs_of(now.record)[now.record->pairs]))
			now.pair[now.record->pairs++] = link;
	}
}

static void pass_socks(uint32_t fds)
{
	struct image_sock *socks = socks_of(now.record);
	struct sock **known = calloc(fds, sizeof(*known)), *s;

	if (!known)
		return; /* the new image has no sockets of the stack, and says so at their first use: ENOTCONN */
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
		struct image_fd *entry = (struct image_fd *)(socks + fds) + now.record->fds++;
		*entry = (struct image_fd){ .fd = fd, .sock = at };
	}
	memmove(fds_of(now.record), socks + fds, now.record->fds * sizeof(struct image_fd));
	free(known);
}

static bool open_record(uint32_t fds)
{
	struct record most = { .links = shim.workers, .pairs = SHIM_LINKS - GZ_WORKERS_MAX, .socks = fds, .fds = fds };

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

	for (uint32_t i = 0; i < now.record->links; i++)
		REAL(fcntl)(links_of(now.record)[i].control_fd, F_SETFD, flags);
	for (uint32_t i = 0; i < now.record->pairs; i++) {
		const struct pair_image *pair = &pairs_of(now.record)[i];

		REAL(fcntl)(pair->memory_fd, F_SETFD, flags);
		for (uint32_t l = 0; l < pair->legs; l++)
			REAL(fcntl)(pair->leg[l].fd, F_SETFD, flags);
	}
}

static void close_record(void)
{
	for (uint32_t i = 0; i < now.record->links; i++)
		if (links_of(now.record)[i].control_fd != now.passed[i]->control_fd)
			UNCANCELLED(close, links_of(now.record)[i].control_fd);
	if (now.introduced)
		pair_after_fork_in_parent();
	now.introduced = false;
	munmap(now.record, now.size);
	UNCANCELLED(close, now.fd);
	now.fd = -1;
}

/* `envp` with the record's name; one mapping, so that no allocator is asked where a program may exec. NULL: no memory. */
static char **name_record(char *const envp[])
{
	size_t count = 0, at = 0;
	char **env, *name;

	while (envp[count])
		count++;
	env = mmap(NULL, (count + 2) * sizeof(*env) + NAME_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
	           -1, 0);
	if (env == MAP_FAILED)
		return NULL;
	name = (char *)(env + count + 2);
	snprintf(name, NAME_ROOM, "%s=%d", EXEC_VARIABLE, now.fd);
	for (size_t i = 0; i < count; i++)
		if (strncmp(envp[i], EXEC_VARIABLE "=", sizeof(EXEC_VARIABLE)))
			env[at++] = envp[i];
	env[at] = name;
	return env;
}

char **exec_prepare(char *const envp[])
{
	uint32_t fds = 0;
	char **env = NULL;

	if (!shim_active() || !envp)
		return (char **)envp;
	for (int fd = 0; next_passed(&fd); fd++)
		fds++;
	if (!fds)
		return (char **)envp;
	shim_lock();
	if (!open_record(fds))
		goto err_unlock;
	pass_links();
	pass_pairs();
	pass_socks(fds);
	now.record->magic = RECORD_MAGIC;
	now.record->abi_version = GZ_ABI_VERSION;
	now.record->pid = getpid();
	now.record->size = (uint32_t)size_of(now.record);
	env = name_record(envp);
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
	size_t count = 0;

	if (env == (char **)envp)
		return;
	inside_shut(now.locks);
	while (envp[count])
		count++;
	set_cloexec(true);
	close_record();
	shim_unlock();
	munmap(env, (count + 2) * sizeof(*env) + NAME_ROOM);
	errno = err;
}

/* ------------------------------------------------------------------ the new image */

static struct link *restore_link(const struct image_link *image)
{
	struct link *link = image->slot < shim.workers
	                            ? program_inherit(image->slot, image->queue_id, image->control_fd, image->arena_size)
	                            : NULL;

	for (uint32_t w = 0; link && w < GZ_SOCKS_MAX / 64; w++)
		for (uint64_t bits = image->drop[w]; bits; bits &= bits - 1)
			program_drop_later(link, w * 64 + (uint32_t)__builtin_ctzll(bits));
	if (link)
		program_tell_dropped(link);
	return link;
}

static struct sock *restore_sock(const struct image_sock *image, struct link *const *pairs, uint32_t pair_count)
{
	struct link *link = image->slot < shim.workers ? gz_load(&shim.links[image->slot]) : NULL;

	if (image->slot >= GZ_WORKERS_MAX && image->slot - GZ_WORKERS_MAX < pair_count)
		link = pairs[image->slot - GZ_WORKERS_MAX];
	return image_restore(image, link);
}

static void restore(struct record *record)
{
	struct sock **socks = calloc(record->socks + 1, sizeof(*socks));
	struct link *pairs[SHIM_LINKS - GZ_WORKERS_MAX];
	uint32_t links = 0, pair_count = 0;

	if (!socks)
		return;
	for (uint32_t i = 0; i < record->links; i++)
		links += restore_link(&links_of(record)[i]) != NULL;
	for (; pair_count < record->pairs && pair_count < SHIM_LINKS - GZ_WORKERS_MAX; pair_count++)
		pairs[pair_count] = pair_inherit(&pairs_of(record)[pair_count]);
	for (uint32_t i = 0; i < record->socks; i++)
		socks[i] = restore_sock(&socks_of(record)[i], pairs, pair_count);
	for (uint32_t i = 0; i < record->fds; i++) {
		const struct image_fd *image = &fds_of(record)[i];

		if (image->sock >= record->socks || !socks[image->sock])
			continue;
		sock_get(socks[image->sock]);
		fd_put(image->fd, (uintptr_t)socks[image->sock]);
		if (sock_kind(socks[image->sock]) == KIND_DGRAM)
			dgram_options_load(socks[image->sock], image->fd); /* the placeholder has them */
	}
	free(socks);
	api_cover_stdio();
	/* Whoever was there before this exec may share them with others. */
	gz_store(&shim.forks, 1);
	gz_store(&shim.missing, shim.workers - links);
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

/* Before main: nothing here waits for anybody. */
__attribute__((constructor)) static void inherit(void)
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
		if (shim_inherit())
			restore(record);
	}
	munmap(record, (size_t)st.st_size);
}
