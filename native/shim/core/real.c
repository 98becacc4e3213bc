/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "core/real.h"

struct real_calls real;

/* Stands for what this C library does not have. */
static int missing(void)
{
	errno = ENOSYS;
	return -1;
}

static void find(void *slot, const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);

	if (!found)
		found = (void *)missing;
	memcpy(slot, &found, sizeof(found));
}

void real_resolve(void)
{
#define X(ret, name, args) find(&real.name, #name);
	REAL_CALLS(X)
#undef X
	__atomic_store_n(&real.ready, true, __ATOMIC_RELEASE);
}
