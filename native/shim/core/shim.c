/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/real.h"
#include "core/shim.h"

struct shim shim;
static int cancel_state; /* of the thread that holds shim.lock, before it took it */

void shim_lock(void)
{
	int state;

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	lock_take(&shim.lock);
	cancel_state = state;
}

bool shim_try_lock(void)
{
	int state;

	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	if (lock_try(&shim.lock)) {
		cancel_state = state;
		return true;
	}
	(void)pthread_setcancelstate(state, NULL);
	return false;
}

void shim_unlock(void)
{
	int state = cancel_state;

	lock_give(&shim.lock);
	(void)pthread_setcancelstate(state, NULL);
}

/* Said once per process: a program that is not accelerated should not be so unnoticed, nor drown its own output. */
void shim_complain(const char *what, const char *detail, const char *so)
{
	char text[256];
	int n;

	if (shim.complained)
		return;
	shim.complained = true;
	if (!so)
		so = shim.fallback_fail ? "sockets are refused (--fallback fail)" : "the kernel serves this program";
	n = snprintf(text, sizeof(text), "liblstack: %s%s%s; %s\n", what, detail ? ": " : "", detail ? detail : "", so);
	if (n > 0)
		(void)!REAL(write)(STDERR_FILENO, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

void shim_refused(const char *why)
{
	struct gz_explain *explain = shim.explain;
	uint32_t none = 0;

	snprintf(shim.refusal, sizeof(shim.refusal), "%s", why);
	if (!explain || gz_load(&explain->refused) || !gz_cas(&explain->refused, &none, 1))
		return;
	strncpy(explain->why, why, sizeof(explain->why) - 1);
	gz_store_release(&explain->refused, 2); /* the words are there */
}

void shim_explain(enum gz_explained kind)
{
	if (__builtin_expect(shim.explain != NULL, 0))
		gz_add(&shim.explain->accelerated[kind], 1);
}
