/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "process/exec_env.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/real.h"
#include "worker/group.h"

#define PRELOAD "LD_PRELOAD="
#define RECORD EXEC_VARIABLE "="
#define RECORD_ROOM sizeof(RECORD "2147483647")
#define HEADERS_MAX 64u
#define SCRIPTS_DEEP 4u /* an interpreter may be a script itself, as far as the kernel follows */

static const char *library; /* as LD_PRELOAD has it; NULL: not known */

/* In front of an environment that was made here. */
struct made {
	size_t size;
	int record_fd;
	char *env[];
};

void exec_env_begin(void)
{
	Dl_info info;

	if (dladdr((const void *)exec_env_begin, &info) && info.dli_fname && *info.dli_fname == '/')
		library = info.dli_fname;
}

/* ------------------------------------------------------------------ what would execute it */

static bool is_glibcs(const char *loader)
{
	const char *name = strrchr(loader, '/');

	name = name ? name + 1 : loader;
	return !strncmp(name, "ld-linux", 8) || !strncmp(name, "ld64.so", 7);
}

static bool elf_loads(int fd, const Elf64_Ehdr *head)
{
	char loader[PATH_MAX] = "";

	if (head->e_ident[EI_CLASS] != ELFCLASS64)
		return false;
	for (uint32_t i = 0; i < head->e_phnum && i < HEADERS_MAX; i++) {
		Elf64_Phdr part;

		if (pread(fd, &part, sizeof(part), (off_t)(head->e_phoff + i * sizeof(part))) != sizeof(part))
			return true;
		if (part.p_type != PT_INTERP || part.p_filesz >= sizeof(loader))
			continue;
		if (pread(fd, loader, part.p_filesz, (off_t)part.p_offset) < 0)
			return true;
		return is_glibcs(loader);
	}
	return true; /* no loader: it looks at no variable */
}

/* The interpreter of a script, in its own buffer. NULL: none. */
static const char *interpreter_of(char *line, ssize_t length)
{
	char *name = line + 2, *end;

	if (length < 4 || line[0] != '#' || line[1] != '!')
		return NULL;
	line[length] = '\0';
	name += strspn(name, " \t");
	end = name + strcspn(name, " \t\n");
	*end = '\0';
	return *name ? name : NULL;
}

static bool file_loads(int dir_fd, const char *path, uint32_t deep)
{
	union {
		Elf64_Ehdr elf;
		char line[256];
	} head = { .line = "" };
	bool loads = true;
	const char *next;
	int fd;

	if (!*path)
		fd = REAL(fcntl)(dir_fd, F_DUPFD_CLOEXEC, 0);
	else
		fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return true;
	ssize_t got = pread(fd, &head, sizeof(head) - 1, 0);
	if (got >= (ssize_t)sizeof(head.elf) && !memcmp(head.elf.e_ident, ELFMAG, SELFMAG)) {
		loads = elf_loads(fd, &head.elf);
	} else if (deep) {
		next = interpreter_of(head.line, got);
		loads = !next || file_loads(AT_FDCWD, next, deep - 1);
	}
	UNCANCELLED(close, fd);
	return loads;
}

bool exec_env_loads(const struct exec_target *target)
{
	const char *path = getenv("PATH"), *end;
	char name[PATH_MAX];

	if (!target->search || strchr(target->path, '/'))
		return file_loads(target->dir_fd, target->path, SCRIPTS_DEEP);
	for (; path; path = *end ? end + 1 : NULL) {
		end = strchrnul(path, ':');
		if (snprintf(name, sizeof(name), "%.*s%s%s", (int)(end - path), path, end > path ? "/" : "",
		             target->path) < (int)sizeof(name) &&
		    !faccessat(AT_FDCWD, name, X_OK, AT_EACCESS))
			return file_loads(AT_FDCWD, name, SCRIPTS_DEEP);
	}
	return true;
}

/* ------------------------------------------------------------------ environments */

/* Where the list of a PRELOAD variable names the library; NULL: nowhere. */
static const char *named_in(const char *list)
{
	size_t length = strlen(library);

	for (const char *at = list; (at = strstr(at, library)); at += length)
		if ((at == list || strchr(": ", at[-1])) && (!at[length] || strchr(": ", at[length])))
			return at;
	return NULL;
}

static const char *preload_of(char *const envp[])
{
	for (; *envp; envp++)
		if (!strncmp(*envp, PRELOAD, strlen(PRELOAD)))
			return *envp + strlen(PRELOAD);
	return NULL;
}

bool exec_env_preloads(char *const envp[])
{
	const char *list = library && envp ? preload_of(envp) : NULL;

	return list && named_in(list);
}

static bool has(char *const envp[], const char *name)
{
	size_t length = strlen(name);

	for (; *envp; envp++)
		if (!strncmp(*envp, name, length) && (*envp)[length] == '=')
			return true;
	return false;
}

/* Room for an environment with `strings` bytes of its own, without PRELOAD and RECORD; *at: where more goes, and *text theirs. */
static struct made *copy(char *const envp[], size_t strings, size_t *at, char **text)
{
	size_t count = 0, size;
	struct made *made;

	while (envp[count])
		count++;
	count += 3 + GROUP_VARIABLES;
	size = sizeof(*made) + count * sizeof(*made->env) + strings;
	made = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (made == MAP_FAILED)
		return NULL;
	made->size = size;
	made->record_fd = -1;
	*text = (char *)(made->env + count);
	*at = 0;
	for (size_t i = 0; envp[i]; i++)
		if (strncmp(envp[i], RECORD, strlen(RECORD)) && strncmp(envp[i], PRELOAD, strlen(PRELOAD)))
			made->env[(*at)++] = envp[i];
	return made;
}

char **exec_env_with(char *const envp[], int record_fd)
{
	const char *list = preload_of(envp);
	size_t strings = RECORD_ROOM + strlen(PRELOAD) + (list ? strlen(list) : 0) + (library ? strlen(library) : 0) + 2,
	       at;
	bool add = library && !(list && named_in(list));
	struct made *made;
	char *text;

	for (uint32_t i = 0; i < GROUP_VARIABLES; i++)
		strings += group_assignment(i) ? strlen(group_assignment(i)) + 1 : 0;
	made = copy(envp, strings, &at, &text);
	if (!made)
		return NULL;
	made->record_fd = record_fd;
	made->env[at++] = text;
	text += sprintf(text, RECORD "%d", record_fd) + 1;
	if (add || list) {
		made->env[at++] = text;
		text += sprintf(text, PRELOAD "%s%s%s", add ? library : "", add && list && *list ? ":" : "",
		                list ? list : "") +
		        1;
	}
	for (uint32_t i = 0; i < GROUP_VARIABLES; i++)
		if (group_assignment(i) && !has(envp, group_variable(i))) {
			made->env[at++] = text;
			text = stpcpy(text, group_assignment(i)) + 1;
		}
	return made->env;
}

char **exec_env_without(char *const envp[])
{
	const char *list = preload_of(envp), *name = list ? named_in(list) : NULL;
	struct made *made;
	size_t at;
	char *text;

	made = copy(envp, strlen(PRELOAD) + (list ? strlen(list) : 0) + 1, &at, &text);
	if (!made)
		return NULL;
	if (!name)
		return made->env;
	const char *rest = name + strlen(library);
	if (*rest)
		rest++;
	if (name > list || *rest) {
		made->env[at++] = text;
		sprintf(text, PRELOAD "%.*s%s", (int)(name - list), list, rest);
	}
	return made->env;
}

static struct made *made_of(char **env)
{
	return (struct made *)((char *)env - offsetof(struct made, env));
}

int exec_env_record(char **env)
{
	return made_of(env)->record_fd;
}

void exec_env_free(char **env)
{
	munmap(made_of(env), made_of(env)->size);
}
