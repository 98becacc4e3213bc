/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What a new program's environment says of the library. A program that is handed sockets of the stack gets it, also from one that gives
 * its children an environment of their own; one that could not load it (musl, 32 bit) is not asked to, as it would not run then.
 */
#ifndef SHIM_EXEC_ENV_H
#define SHIM_EXEC_ENV_H

#include <stdbool.h>

#define EXEC_VARIABLE "GAZELLED_EXEC"

/* Before main: where the library is. */
void exec_env_begin(void);

/* The program to be executed. execvpe: `file` is searched for if it has no slash. */
struct exec_target {
	int dir_fd; /* of a relative path; with an empty path: the program */
	const char *path;
	bool search;
};

/* False: what executes it would not load the library. True also if there is nothing to be seen. */
bool exec_env_loads(const struct exec_target *target);

/* True if it names the library. */
bool exec_env_preloads(char *const envp[]);

/* The environment with the library, and EXEC_VARIABLE as the record's number. One mapping: no allocator. NULL: no memory. */
char **exec_env_with(char *const envp[], int record_fd);

/* The environment without the library. */
char **exec_env_without(char *const envp[]);

/* The record's number in an environment made by exec_env_with(), else -1. */
int exec_env_record(char **env);

void exec_env_free(char **env);

#endif
