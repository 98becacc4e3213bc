/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/signalfd.h>

#include <gazelle/abi.h>

#include "eventq.h"
#include "fdtable.h"
#include "real.h"
#include "shim.h"
#include "signals.h"

#define SCAN_NS 5000000ull /* so long what is known of the program's handlers is believed */

static struct place {
	int fd; /* 0 or -1: none */
	sigset_t set;
} place[GZ_EVENT_QUEUES];

enum handler { NONE, RESTARTS, INTERRUPTS };

static enum handler handler_of(int sig)
{
	struct sigaction action;

	if (REAL(sigaction)(sig, NULL, &action))
		return NONE;
	if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)
		return NONE;
	return action.sa_flags & SA_RESTART ? RESTARTS : INTERRUPTS;
}

bool signals_interrupt(void)
{
	for (int sig = 1; sig < NSIG; sig++)
		if (handler_of(sig) == INTERRUPTS)
			return true;
	return false;
}

bool signals_differ(bool *sure)
{
	static _Atomic uint64_t scanned_ns;
	static _Atomic bool differ;
	bool seen[3] = { false };
	uint64_t now = now_ns();

	if (now - gz_load(&scanned_ns) < SCAN_NS)
		return *sure = gz_load(&differ);
	*sure = true;
	for (int sig = 1; sig < NSIG; sig++)
		seen[handler_of(sig)] = true;
	gz_store(&differ, seen[RESTARTS] && seen[INTERRUPTS]);
	gz_store(&scanned_ns, now);
	return seen[RESTARTS] && seen[INTERRUPTS];
}

int signals_hold(struct signals *signals, uint32_t queue)
{
	struct place *p = &place[queue];
	sigset_t all;
	int fd;

	if (queue == EVENTQ_SHARED)
		return -EBUSY;
	sigfillset(&all);
	if (pthread_sigmask(SIG_BLOCK, &all, &signals->before))
		return -EINVAL;
	/* What the program itself holds back does not concern us. */
	for (int sig = 1; sig < NSIG; sig++)
		if (sigismember(&signals->before, sig) > 0)
			sigdelset(&all, sig);
	if (p->fd > 0 && memcmp(&p->set, &all, sizeof(all))) /* the program's mask has changed */
		fd_own_close(&p->fd);
	if (p->fd <= 0) {
		fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
		if (fd < 0) {
			fd = -errno;
			pthread_sigmask(SIG_SETMASK, &signals->before, NULL);
			return fd;
		}
		fd_own(fd, &p->fd);
		p->set = all;
	}
	return p->fd;
}

bool signals_release(const struct signals *signals)
{
	bool interrupts = false;
	sigset_t pending;

	if (!sigpending(&pending))
		for (int sig = 1; sig < NSIG; sig++)
			if (sigismember(&pending, sig) > 0 && !sigismember(&signals->before, sig))
				interrupts |= handler_of(sig) == INTERRUPTS;
	pthread_sigmask(SIG_SETMASK, &signals->before, NULL);
	return interrupts;
}
