/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fdtable.h"
#include "core/real.h"
#include "process/spawn.h"

/* What a posix_spawn_file_actions_t is to us. */
struct actions {
	struct spawn_action *first, *last;
};
_Static_assert(sizeof(struct actions) <= sizeof(posix_spawn_file_actions_t), "ours fit into theirs");

static struct actions *ours(const posix_spawn_file_actions_t *theirs)
{
	return (struct actions *)theirs;
}

int spawn_add(posix_spawn_file_actions_t *actions, enum spawn_kind kind, int fd, int other, mode_t mode, const char *path)
{
	struct actions *list = ours(actions);
	size_t length = path ? strlen(path) + 1 : 0;
	struct spawn_action *action;

	if (fd < 0 || (kind == SPAWN_DUP2 && other < 0))
		return EBADF;
	action = calloc(1, sizeof(*action) + length);
	if (!action)
		return ENOMEM;
	action->kind = kind;
	action->fd = fd;
	action->other = other;
	action->mode = mode;
	if (path)
		memcpy(action->path, path, length);
	if (list->last)
		list->last->next = action;
	else
		list->first = action;
	list->last = action;
	return 0;
}

void spawn_init(posix_spawn_file_actions_t *actions)
{
	memset(actions, 0, sizeof(*actions));
}

void spawn_destroy(posix_spawn_file_actions_t *actions)
{
	struct spawn_action *action = ours(actions)->first, *next;

	for (; action; action = next) {
		next = action->next;
		free(action);
	}
	spawn_init(actions);
}

/* ------------------------------------------------------------------ in the child */

static int open_at(const struct spawn_action *action)
{
	int fd;

	(void)close(action->fd);
	fd = open(action->path, action->other, action->mode);
	if (fd < 0)
		return errno;
	if (fd == action->fd)
		return 0;
	if (dup2(fd, action->fd) < 0)
		return errno;
	(void)close(fd);
	return 0;
}

/* The calls are the program's own, which know whose descriptor is what. */
static int act(const struct spawn_action *action)
{
	pid_t group;

	switch (action->kind) {
	case SPAWN_CLOSE:
		(void)close(action->fd); /* one that is not open is no reason to fail */
		return 0;
	case SPAWN_DUP2:
		if (action->fd == action->other) {
			int flags = fcntl(action->fd, F_GETFD);

			return flags < 0 || fcntl(action->fd, F_SETFD, flags & ~FD_CLOEXEC) < 0 ? errno : 0;
		}
		return dup2(action->fd, action->other) < 0 ? errno : 0;
	case SPAWN_OPEN:
		return open_at(action);
	case SPAWN_CHDIR:
		return chdir(action->path) ? errno : 0;
	case SPAWN_FCHDIR:
		return fchdir(action->fd) ? errno : 0;
	case SPAWN_CLOSEFROM:
		closefrom(action->fd);
		return 0;
	case SPAWN_TCSETPGRP:
		group = getpgrp();
		return tcsetpgrp(action->fd, group) ? errno : 0;
	}
	return EINVAL;
}

static int schedule(const posix_spawnattr_t *attr, short flags)
{
	struct sched_param param;
	int policy;

	if (flags & POSIX_SPAWN_SETSCHEDULER) {
		posix_spawnattr_getschedpolicy(attr, &policy);
		posix_spawnattr_getschedparam(attr, &param);
		return sched_setscheduler(0, policy, &param) < 0 ? errno : 0;
	}
	if (flags & POSIX_SPAWN_SETSCHEDPARAM) {
		posix_spawnattr_getschedparam(attr, &param);
		return sched_setparam(0, &param) ? errno : 0;
	}
	return 0;
}

static int become(const posix_spawnattr_t *attr, short flags)
{
	pid_t group = 0;
	int err = schedule(attr, flags);

	if (err)
		return err;
	if (flags & POSIX_SPAWN_SETSID && setsid() < 0)
		return errno;
	if (flags & POSIX_SPAWN_SETPGROUP) {
		posix_spawnattr_getpgroup(attr, &group);
		if (setpgid(0, group))
			return errno;
	}
	if (flags & POSIX_SPAWN_RESETIDS && (setegid(getgid()) || seteuid(getuid())))
		return errno;
	return 0;
}

static void set_signals(const posix_spawnattr_t *attr, short flags, const sigset_t *mask)
{
	sigset_t set;

	if (flags & POSIX_SPAWN_SETSIGDEF) {
		posix_spawnattr_getsigdefault(attr, &set);
		for (int number = 1; number < NSIG; number++)
			if (sigismember(&set, number) == 1)
				(void)signal(number, SIG_DFL);
	}
	if (flags & POSIX_SPAWN_SETSIGMASK) {
		posix_spawnattr_getsigmask(attr, &set);
		mask = &set;
	}
	(void)pthread_sigmask(SIG_SETMASK, mask, NULL);
}

/* No handler of the program's may run in the child: its signals are blocked until this, and handlers end with the exec. */
static void default_handlers(void)
{
	struct sigaction action;

	for (int number = 1; number < NSIG; number++)
		if (!sigaction(number, NULL, &action) && action.sa_handler != SIG_IGN && action.sa_handler != SIG_DFL)
			(void)signal(number, SIG_DFL);
}

static int run(const char *file, bool search, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attr,
               char *const argv[], char *const envp[], const sigset_t *mask)
{
	short flags = 0;
	int err = 0;

	if (attr)
		posix_spawnattr_getflags(attr, &flags);
	err = become(attr, flags);
	for (struct spawn_action *action = actions ? ours(actions)->first : NULL; action && !err; action = action->next)
		err = act(action);
	if (err)
		return err;
	default_handlers();
	set_signals(attr, flags, mask);
	(void)(search ? execvpe(file, argv, envp) : execve(file, argv, envp));
	return errno;
}

/* ------------------------------------------------------------------ in the parent */

int spawn(pid_t *pid, const char *file, bool search, const posix_spawn_file_actions_t *actions,
          const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	int ends[2], told = -1, hear = -1, err = 0;
	sigset_t all, mask;
	ssize_t n;
	pid_t child;

	if (pipe2(ends, O_CLOEXEC))
		return errno;
	/* Out of the way of the program's actions. */
	fd_own(ends[0], &hear);
	fd_own(ends[1], &told);
	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &mask);
	child = fork();
	if (!child) {
		err = run(file, search, actions, attr, argv, envp, &mask);
		(void)!REAL(write)(told, &err, sizeof(err));
		_exit(127);
	}
	if (child < 0)
		err = errno;
	fd_own_close(&told);
	/* The end of the pipe is the exec. */
	while (child > 0 && (n = REAL(read)(hear, &err, sizeof(err))) < 0 && errno == EINTR)
		;
	fd_own_close(&hear);
	if (child > 0 && err)
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
	else if (child > 0 && pid)
		*pid = child;
	(void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
	return err;
}
