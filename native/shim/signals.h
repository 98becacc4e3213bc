/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Signals that come while a blocking call sleeps: the kernel's calls go on after a handler with SA_RESTART and fail with EINTR
 * after another. ppoll(), which we sleep in, fails after both, and does not say which it was. Where a program has handlers of
 * both kinds the signals are held back during the sleep, a signalfd tells of them, and before they are let in we see which
 * they are. They are only looked at: the program's handlers run, in the thread the kernel chooses, as they would without us.
 */
#ifndef SHIM_SIGNALS_H
#define SHIM_SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct signals {
	sigset_t before;
};

/* True if some handler of the program makes a blocking call fail. */
bool signals_interrupt(void);

/* True if the program has handlers of both kinds. *sure: looked at now, or true; else as of a moment ago. */
bool signals_differ(bool *sure);

/* Holds them back in this thread. A descriptor that is readable when one waits, for this thread's event queue; or -errno, and
 * nothing is held. */
int signals_hold(struct signals *signals, uint32_t queue);

/* Lets them in. True if one of them must make the call fail. */
bool signals_release(const struct signals *signals);

#endif
