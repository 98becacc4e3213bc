/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "apps/audit.h"

#include <sys/stat.h>

#include "apps/app.h"
#include "arena/arena.h"
#include "socket/conn.h"
#include "socket/stream.h"

/* Arenas looked at per call: each costs about a microsecond. */
#define AT_ONCE 256u
/* A late write to a block that was given back is no offence; that many are. */
#define SLACK (16ull << 20)

/* What its orphans have to say is not worth this. */
static void end_orphans(struct arena *arena)
{
	for (uint32_t n = 1; n < arena->high; n++)
		if (arena->conns[n] && !arena->conns[n]->holders)
			stream_reset(arena->conns[n]);
}

static void end(struct arena *arena, const char *why)
{
	if (arena->apps)
		app_detach_arena_later(arena, why);
	else
		end_orphans(arena);
}

static struct arena *largest_of(struct apps *apps, const struct user *user)
{
	struct arena *largest = NULL;

	for (struct arena *arena = apps->arenas.all; arena; arena = arena->next)
		if (arena->user == user && (!largest || arena->memory > largest->memory))
			largest = arena;
	return largest;
}

static void audit(struct apps *apps, struct arena *arena)
{
	struct user *user = arena->user;
	struct stat st;

	if (fstat(arena->fd, &st))
		return;
	uint64_t bytes = (uint64_t)st.st_blocks * 512u;

	user->memory_short = quota_move(user, QUOTA_MEMORY, arena->memory, bytes);
	arena->memory = bytes;
	if (bytes > arena_allowed(arena) + SLACK)
		end(arena, "it uses memory it was not given");
	else if (user->uid && user->used[QUOTA_MEMORY] > apps->quota.limit[QUOTA_MEMORY] / 2)
		end(largest_of(apps, user), "its user has too much memory");
}

void audit_some(struct apps *apps)
{
	struct arena *arena = apps->arenas.audit ? apps->arenas.audit : apps->arenas.all;

	for (uint32_t i = 0; arena && i < AT_ONCE; i++) {
		audit(apps, arena);
		arena = arena->next;
	}
	apps->arenas.audit = arena;
}
