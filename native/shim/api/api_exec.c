/* SPDX-License-Identifier: MulanPSL-2.0 */
/* exec: what the new program inherits is recorded first (exec.c). posix_spawn. */
#include <alloca.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <unistd.h>

#include "api/api.h"
#include "process/exec.h"
#include "process/exec_env.h"
#include "core/real.h"
#include "process/spawn.h"
#include "worker/group.h"

extern char **environ;

/* The arguments of an execl: `first` and those that follow, up to and with NULL. */
#define COLLECT(argv, ap, first)                                    \
	do {                                                        \
		int count = 1;                                      \
		va_start(ap, first);                                \
		while (va_arg(ap, const char *))                    \
			count++;                                    \
		va_end(ap);                                         \
		argv = alloca(((size_t)count + 1) * sizeof(*argv)); \
		argv[0] = (char *)first;                            \
		va_start(ap, first);                                \
		for (int i = 1; i <= count; i++)                    \
			argv[i] = va_arg(ap, char *);               \
	} while (0)

EXPORT int execveat(int dir_fd, const char *path, char *const argv[], char *const envp[], int flags)
{
	char **env = exec_prepare(&(struct exec_target){ dir_fd, path, false }, envp);
	int r = REAL(execveat)(dir_fd, path, argv, env, flags);

	exec_failed(env, envp);
	return r;
}

EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	char **env;
	int r;

	/* A search of a path tries many names that are not there. */
	if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS))
		return REAL(execve)(path, argv, envp);
	env = exec_prepare(&(struct exec_target){ AT_FDCWD, path, false }, envp);
	r = REAL(execve)(path, argv, env);
	exec_failed(env, envp);
	return r;
}

EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	char **env = exec_prepare(&(struct exec_target){ fd, "", false }, envp);
	int r = REAL(fexecve)(fd, argv, env);

	exec_failed(env, envp);
	return r;
}

EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	char **env = exec_prepare(&(struct exec_target){ AT_FDCWD, file, true }, envp);
	int r = REAL(execvpe)(file, argv, env);

	exec_failed(env, envp);
	return r;
}

EXPORT int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

EXPORT int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

EXPORT int execl(const char *path, const char *first, ...)
{
	char **argv;
	va_list ap;

	COLLECT(argv, ap, first);
	va_end(ap);
	return execve(path, argv, environ);
}

EXPORT int execlp(const char *file, const char *first, ...)
{
	char **argv;
	va_list ap;

	COLLECT(argv, ap, first);
	va_end(ap);
	return execvpe(file, argv, environ);
}

EXPORT int execle(const char *path, const char *first, ...)
{
	char **argv, *const *envp;
	va_list ap;

	COLLECT(argv, ap, first);
	envp = va_arg(ap, char *const *);
	va_end(ap);
	return execve(path, argv, envp);
}

/* ------------------------------------------------------------------ posix_spawn */

EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	return spawn(pid, path, false, actions, attr, argv, envp);
}

EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	return spawn(pid, file, true, actions, attr, argv, envp);
}

EXPORT int posix_spawn_file_actions_init(posix_spawn_file_actions_t *actions)
{
	spawn_init(actions);
	return 0;
}

EXPORT int posix_spawn_file_actions_destroy(posix_spawn_file_actions_t *actions)
{
	spawn_destroy(actions);
	return 0;
}

EXPORT int posix_spawn_file_actions_addclose(posix_spawn_file_actions_t *actions, int fd)
{
	return spawn_add(actions, SPAWN_CLOSE, fd, 0, 0, NULL);
}

EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int newfd)
{
	return spawn_add(actions, SPAWN_DUP2, fd, newfd, 0, NULL);
}

EXPORT int posix_spawn_file_actions_addopen(posix_spawn_file_actions_t *actions, int fd, const char *path, int flags,
                                            mode_t mode)
{
	return spawn_add(actions, SPAWN_OPEN, fd, flags, mode, path);
}

EXPORT int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t *actions, const char *path)
{
	return spawn_add(actions, SPAWN_CHDIR, 0, 0, 0, path);
}

EXPORT int posix_spawn_file_actions_addfchdir_np(posix_spawn_file_actions_t *actions, int fd)
{
	return spawn_add(actions, SPAWN_FCHDIR, fd, 0, 0, NULL);
}

EXPORT int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int first)
{
	return spawn_add(actions, SPAWN_CLOSEFROM, first, 0, 0, NULL);
}

EXPORT int posix_spawn_file_actions_addtcsetpgrp_np(posix_spawn_file_actions_t *actions, int fd)
{
	return spawn_add(actions, SPAWN_TCSETPGRP, fd, 0, 0, NULL);
}

__attribute__((constructor)) static void begin(void)
{
	group_remember();
	exec_env_begin();
	exec_inherit();
	api_cover_stdio();
}
