/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * posix_spawn as fork, the file actions, exec. The C library's own does all this inside itself, where descriptors would move
 * without our seeing it. So file actions are a list of ours, in the room the C library's type gives.
 */
#ifndef SHIM_SPAWN_H
#define SHIM_SPAWN_H

#include <spawn.h>
#include <stdbool.h>
#include <sys/types.h>

enum spawn_kind { SPAWN_CLOSE, SPAWN_DUP2, SPAWN_OPEN, SPAWN_CHDIR, SPAWN_FCHDIR, SPAWN_CLOSEFROM, SPAWN_TCSETPGRP };

struct spawn_action {
	struct spawn_action *next;
	enum spawn_kind kind;
	int fd, other;
	mode_t mode;
	char path[];
};

/* A new last action; `path` may be NULL. 0 or a positive errno, as the functions that lead here return it. */
int spawn_add(posix_spawn_file_actions_t *actions, enum spawn_kind kind, int fd, int other, mode_t mode, const char *path);

/* No actions (any more). */
void spawn_init(posix_spawn_file_actions_t *actions);
void spawn_destroy(posix_spawn_file_actions_t *actions);

/* posix_spawn(), or posix_spawnp() if `search`. 0 or a positive errno. */
int spawn(pid_t *pid, const char *file, bool search, const posix_spawn_file_actions_t *actions,
          const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);

#endif
