/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "core/inside.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "core/real.h"

#define MASK_BYTES 8u /* of the kernel's signal set, also where it lies in a ucontext_t; the C library's is longer */

__thread struct inside inside;

/* The signal that has come, and what was blocked before. */
static __thread struct {
	siginfo_t info;
	uint64_t mask;
} late;

/* What the program has set. A signal may read the handler at any time. */
static struct program {
	void (*_Atomic handler)(int, siginfo_t *, void *);
	_Atomic int flags;
} program[NSIG];

/* ------------------------------------------------------------------ signals */

/* What the kernel says of an instruction: that cannot go on. */
static bool is_fault(int sig, const siginfo_t *info)
{
	switch (sig) {
	case SIGSEGV:
	case SIGBUS:
	case SIGFPE:
	case SIGILL:
	case SIGTRAP:
	case SIGSYS:
		return info->si_code > 0;
	default:
		return false;
	}
}

/* All but those that cannot wait, and the C library's own two. */
static uint64_t held_back(void)
{
	static const int never[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, 32, 33 };
	uint64_t mask = ~0ull;

	for (uint32_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		mask &= ~(1ull << (never[i] - 1));
	return mask;
}

/* The kernel's handler for every signal the program has one for. */
static void relay(int sig, siginfo_t *info, void *context)
{
	void (*handler)(int, siginfo_t *, void *) = program[sig].handler;
	uint64_t mask = held_back();
	ucontext_t *back = context;

	if (inside.locks && !inside.late && !is_fault(sig, info)) {
		late.info = *info;
		late.info.si_signo = sig;
		memcpy(&late.mask, &back->uc_sigmask, MASK_BYTES);
		memcpy(&back->uc_sigmask, &mask, MASK_BYTES);
		inside.late = true;
		return;
	}
	if (program[sig].flags & (int)SA_RESETHAND) {
		struct sigaction none = { .sa_handler = SIG_DFL };

		(void)REAL(sigaction)(sig, &none, NULL);
	}
	handler(sig, info, context);
	if (!inside.waits || (inside.mask && sigismember(inside.mask, sig)))
		return;
	inside.handled++;
	if (!(program[sig].flags & SA_RESTART))
		inside.interrupted++;
	/* It may be about to sleep. */
	if (inside.queue) {
		int err = errno;

		inside_wake(inside.queue - 1);
		errno = err;
	}
}

static void set_mask(uint64_t mask)
{
	sigset_t set;

	sigemptyset(&set);
	memcpy(&set, &mask, MASK_BYTES);
	(void)pthread_sigmask(SIG_SETMASK, &set, NULL);
}

/* All are blocked still: it is let in, as it came, where the mask is as it was. */
static void let_in(void)
{
	uint64_t mask = late.mask;
	int err = errno;

	(void)REAL(syscall)(SYS_rt_tgsigqueueinfo, getpid(), REAL(syscall)(SYS_gettid), late.info.si_signo, &late.info);
	inside.late = false;
	set_mask(mask);
	errno = err;
}

int inside_action(int sig, const struct sigaction *action, struct sigaction *old)
{
	bool ours = action && action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN;
	void (*handler)(int, siginfo_t *, void *) = NULL;
	struct sigaction mine, was = { 0 };
	int flags = 0;

	if (sig < 1 || sig >= NSIG)
		return -EINVAL;
	handler = program[sig].handler;
	flags = program[sig].flags;
	if (ours) {
		mine = *action;
		mine.sa_sigaction = relay;
		mine.sa_flags = (action->sa_flags & ~(int)SA_RESETHAND) | SA_SIGINFO;
		/* Before the kernel calls us for it. A handler gets three arguments from it, too, whatever it declares. */
		program[sig].handler = action->sa_sigaction;
		program[sig].flags = action->sa_flags;
	}
	if (REAL(sigaction)(sig, ours ? &mine : action, &was)) {
		int err = -errno;

		if (ours) {
			program[sig].handler = handler;
			program[sig].flags = flags;
		}
		return err;
	}
	if (!old)
		return 0;
	*old = was;
	if (was.sa_sigaction == relay) {
		old->sa_sigaction = handler;
		old->sa_flags = (was.sa_flags & ~SA_SIGINFO) | (flags & (SA_SIGINFO | (int)SA_RESETHAND));
	}
	return 0;
}

int inside_interrupt(int sig, bool on)
{
	if (sig < 1 || sig >= NSIG)
		return -EINVAL;
	if (on)
		program[sig].flags &= ~SA_RESTART;
	else
		program[sig].flags |= SA_RESTART;
	return REAL(siginterrupt)(sig, on) ? -errno : 0;
}

bool inside_unknown_interrupts(void)
{
	struct sigaction action;

	for (int sig = 1; sig < NSIG; sig++)
		if (!REAL(sigaction)(sig, NULL, &action) && action.sa_handler != SIG_DFL &&
		    action.sa_handler != SIG_IGN && action.sa_sigaction != relay && !(action.sa_flags & SA_RESTART))
			return true;
	return false;
}

uint32_t inside_open(void)
{
	uint32_t locks = inside.locks;

	inside.locks = 0;
	if (inside.late)
		let_in();
	return locks;
}

void inside_shut(uint32_t locks)
{
	inside.locks = locks;
}

void inside_after_fork(void)
{
	inside.locks = 1;
	if (inside.late)
		set_mask(late.mask);
	inside.late = false;
}

/* ------------------------------------------------------------------ cancellation */

static bool is_out(void)
{
	return !inside.locks && !inside.waits;
}

void inside_defer_cancel(void)
{
	if (is_out())
		(void)REAL(pthread_setcanceltype)(PTHREAD_CANCEL_DEFERRED, NULL);
}

void inside_is_left(void)
{
	if (inside.late && !inside.locks)
		let_in();
	if (inside.anywhere && is_out())
		(void)REAL(pthread_setcanceltype)(PTHREAD_CANCEL_ASYNCHRONOUS, NULL); /* and if it is asked for, it ends here */
}

int inside_cancel_type(int type, int *old)
{
	if (type != PTHREAD_CANCEL_DEFERRED && type != PTHREAD_CANCEL_ASYNCHRONOUS)
		return EINVAL;
	if (old)
		*old = inside.anywhere ? PTHREAD_CANCEL_ASYNCHRONOUS : PTHREAD_CANCEL_DEFERRED;
	inside.anywhere = type == PTHREAD_CANCEL_ASYNCHRONOUS;
	return is_out() ? REAL(pthread_setcanceltype)(type, NULL) : 0;
}
