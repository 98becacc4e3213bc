/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What the interposed functions (api_*.c) share. */
#ifndef SHIM_API_H
#define SHIM_API_H

#include <errno.h>
#include <sys/types.h>

#define EXPORT __attribute__((visibility("default")))

/* Inside the shim errors are -errno; the program gets them as the C library gives them. */
static inline ssize_t api_return(ssize_t r)
{
	if (__builtin_expect(r >= 0, 1))
		return r;
	errno = (int)-r;
	return -1;
}

/* exec.c, before main: the C library's own streams of descriptors 0 to 2 that are sockets of ours make our calls. */
void api_cover_stdio(void);

/* api_confine.c: SYS_seccomp. */
long api_seccomp(unsigned long operation, unsigned long flags, unsigned long filter);

#endif
