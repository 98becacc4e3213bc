/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "arena/quota.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <gazelle/worker_page.h>

/* One part in so many of everything is root's. */
#define ROOTS_SHARE 8u
/* What the worker needs for itself and for a moment: its port, rings, pages, what comes with a message. */
#define OWN_FILES 128u
#define FILES_UNKNOWN 1024u
/* 16 GiB of addresses each, of the 128 TiB a process has. */
#define ARENAS 6144u
/* A connection costs the worker about 1 KB of its own memory. */
#define SOCKETS (1u << 20)
/* Each packet without a connection may be compared with all of these. */
#define DATAGRAMS 16384u
#define LISTENERS 4096u
/* Linux: tcp_max_orphans. */
#define ORPHANS 65536u

static uint64_t files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY)
		limit.rlim_cur = FILES_UNKNOWN;
	return limit.rlim_cur > 2 * OWN_FILES ? limit.rlim_cur - OWN_FILES : limit.rlim_cur / 2;
}

/* Programs may fill half of the machine's memory through all workers together. */
static uint64_t memory(uint32_t workers)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

	if (pages <= 0 || size <= 0)
		return UINT64_MAX / 2;
	return (uint64_t)pages * (uint64_t)size / 2 / (workers ? workers : 1);
}

void quota_open(struct quota *quota, uint32_t workers)
{
	quota->limit[QUOTA_PROCESSES] = GZ_APPS_MAX;
	quota->limit[QUOTA_ARENAS] = ARENAS;
	quota->limit[QUOTA_FILES] = files();
	quota->limit[QUOTA_FLIGHT] = files() / (workers ? workers : 1); /* one user's, who runs all workers */
	quota->limit[QUOTA_SOCKETS] = SOCKETS;
	quota->limit[QUOTA_DATAGRAMS] = DATAGRAMS;
	quota->limit[QUOTA_LISTENERS] = LISTENERS;
	quota->limit[QUOTA_LINES] = GZ_LISTENERS_MAX;
	quota->limit[QUOTA_ORPHANS] = ORPHANS;
	quota->limit[QUOTA_MEMORY] = memory(workers);
}

struct user *quota_user(struct quota *quota, uid_t uid)
{
	struct user *user = quota->users;

	while (user && user->uid != uid)
		user = user->next;
	if (!user) {
		user = calloc(1, sizeof(*user));
		if (!user)
			return NULL;
		user->quota = quota;
		user->uid = uid;
		user->next = quota->users;
		quota->users = user;
	}
	user->refs++;
	return user;
}

void quota_hold(struct user *user)
{
	user->refs++;
}

void quota_let_go(struct user *user)
{
	struct user **p = &user->quota->users;

	if (--user->refs)
		return;
	while (*p != user)
		p = &(*p)->next;
	*p = user->next;
	free(user);
}

/* True if he may have that much, of which user->used and quota->used tell already. */
static bool within(const struct user *user, enum quota_kind kind)
{
	const struct quota *quota = user->quota;
	uint64_t limit = quota->limit[kind];

	if (!user->uid)
		return quota->used[kind] <= limit;
	limit -= limit / ROOTS_SHARE;
	return quota->used[kind] <= limit && user->used[kind] <= limit - quota->used[kind];
}

bool quota_take(struct user *user, enum quota_kind kind)
{
	user->used[kind]++;
	user->quota->used[kind]++;
	if (within(user, kind))
		return true;
	quota_give(user, kind);
	return false;
}

void quota_give(struct user *user, enum quota_kind kind)
{
	user->used[kind]--;
	user->quota->used[kind]--;
}

bool quota_charge(struct user *user, uint32_t *charges, enum quota_kind kind)
{
	if (*charges & 1u << kind)
		return true;
	if (!quota_take(user, kind))
		return false;
	*charges |= 1u << kind;
	return true;
}

void quota_settle(struct user *user, uint32_t *charges)
{
	for (; *charges; *charges &= *charges - 1)
		quota_give(user, (enum quota_kind)__builtin_ctz(*charges));
}

bool quota_move(struct user *user, enum quota_kind kind, uint64_t before, uint64_t now)
{
	user->used[kind] += now - before;
	user->quota->used[kind] += now - before;
	return !within(user, kind);
}
