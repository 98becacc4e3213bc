/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Signal handlers and how threads are cancelled: neither may interrupt a thread that holds a lock of ours (inside.h). */
#include <pthread.h>
#include <signal.h>

#include "api/api.h"
#include "core/inside.h"
#include "core/real.h"

/* Forms that headers declare for some standards only. */
EXPORT sighandler_t bsd_signal(int sig, sighandler_t handler);
EXPORT sighandler_t ssignal(int sig, sighandler_t handler);
EXPORT sighandler_t sysv_signal(int sig, sighandler_t handler);
EXPORT sighandler_t __sysv_signal(int sig, sighandler_t handler);

static _Atomic bool interrupts[NSIG]; /* siginterrupt() */

static sighandler_t set(int sig, sighandler_t handler, int flags, bool mask)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags }, old;
	int err;

	if (mask && sig > 0 && sig < NSIG)
		sigaddset(&action.sa_mask, sig);
	err = handler == SIG_ERR ? -EINVAL : inside_action(sig, &action, &old);
	if (!err)
		return old.sa_handler;
	errno = -err;
	return SIG_ERR;
}

EXPORT int sigaction(int sig, const struct sigaction *action, struct sigaction *old)
{
	return (int)api_return(inside_action(sig, action, old));
}

EXPORT sighandler_t signal(int sig, sighandler_t handler)
{
	return set(sig, handler, sig > 0 && sig < NSIG && interrupts[sig] ? 0 : SA_RESTART, true);
}

EXPORT sighandler_t bsd_signal(int sig, sighandler_t handler)
{
	return signal(sig, handler);
}

EXPORT sighandler_t ssignal(int sig, sighandler_t handler)
{
	return signal(sig, handler);
}

EXPORT sighandler_t __sysv_signal(int sig, sighandler_t handler)
{
	return set(sig, handler, (int)SA_RESETHAND | SA_NODEFER, false);
}

EXPORT sighandler_t sysv_signal(int sig, sighandler_t handler)
{
	return __sysv_signal(sig, handler);
}

EXPORT int siginterrupt(int sig, int flag)
{
	if (sig > 0 && sig < NSIG)
		interrupts[sig] = flag != 0;
	return (int)api_return(inside_interrupt(sig, flag != 0));
}

EXPORT sighandler_t sigset(int sig, sighandler_t handler)
{
	struct sigaction now;
	sighandler_t old;
	sigset_t one, mask;

	sigemptyset(&one);
	if (sigaddset(&one, sig) || sigaction(sig, NULL, &now))
		return SIG_ERR;
	old = handler == SIG_HOLD ? now.sa_handler : set(sig, handler, 0, false);
	if (old == SIG_ERR || sigprocmask(handler == SIG_HOLD ? SIG_BLOCK : SIG_UNBLOCK, &one, &mask))
		return SIG_ERR;
	return sigismember(&mask, sig) ? SIG_HOLD : old;
}

EXPORT int pthread_setcanceltype(int type, int *old)
{
	return inside_cancel_type(type, old);
}
