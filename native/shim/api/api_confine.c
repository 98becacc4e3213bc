/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A program is about to give up rights: what the library will need later it fetches now, for then it could not. */
#include <errno.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "api/api.h"
#include "core/attachment.h"
#include "core/confined.h"
#include "core/eventq.h"
#include "core/real.h"
#include "core/shim.h"

#define FEW_FDS 16u /* a limit on descriptors below this is meant to confine */

/* The sockets a child has from its parent are claimed, and the peers know what wakes this thread. */
static void prepare(void)
{
	int kept = errno;

	if (!shim_active())
		return;
	attachment_claim_all();
	eventq_declare(eventq_mine());
	eventq_retract(eventq_mine());
	errno = kept;
}

EXPORT int prctl(int option, ...)
{
	unsigned long b, c, d, e;
	va_list ap;
	int r;

	va_start(ap, option);
	b = va_arg(ap, unsigned long);
	c = va_arg(ap, unsigned long);
	d = va_arg(ap, unsigned long);
	e = va_arg(ap, unsigned long);
	va_end(ap);
	if (option == PR_SET_NO_NEW_PRIVS || option == PR_SET_SECCOMP)
		prepare();
	r = REAL(prctl)(option, b, c, d, e);
	if (option == PR_SET_SECCOMP && !r)
		confined = shim_active();
	return r;
}

EXPORT int chroot(const char *path)
{
	prepare();
	return REAL(chroot)(path);
}

/*
 * Sanitizers come here at their own start, when nothing else of ours can run, nor anything they have instrumented: hence not by
 * REAL.
 */
#if __has_attribute(disable_sanitizer_instrumentation)
#define EARLY __attribute__((disable_sanitizer_instrumentation))
#else
#define EARLY
#endif

EARLY EXPORT int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	if (resource == RLIMIT_NOFILE && limit->rlim_cur < FEW_FDS)
		prepare();
	return prlimit(0, resource, limit, NULL);
}

EARLY EXPORT int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
	if (resource == RLIMIT_NOFILE && limit->rlim_cur < FEW_FDS)
		prepare();
	return prlimit64(0, resource, limit, NULL);
}

long api_seccomp(unsigned long operation, unsigned long flags, unsigned long filter)
{
	long r;

	prepare();
	r = REAL(syscall)(SYS_seccomp, operation, flags, filter);
	if (!r && operation <= 1) /* a mode is set */
		confined = shim_active();
	return r;
}
