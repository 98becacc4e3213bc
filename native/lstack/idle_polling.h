/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * How long a worker without work looks for more before it sleeps, learnt from how the last periods of polling ended. One that finds
 * something saves a sleep and a wake-up. One in vain costs nothing on a CPU nobody else wants, but there it finds nothing
 * either; elsewhere it may keep the very process from the CPU that would send the next packet, and then looking longer does not
 * help, however soon the packet comes once we sleep. So what is found, worth a full period, must make up for all the time that
 * is looked.
 */
#ifndef LSTACK_IDLE_POLLING_H
#define LSTACK_IDLE_POLLING_H

#include <stdbool.h>
#include <stdint.h>

struct idle_polling {
	uint64_t most_ns, ns;   /* a period's length: at most, now */
	uint64_t credit_ns;     /* may still be looked in vain */
	uint64_t none_until_ns; /* there was no credit left */
	bool judged;            /* in this silence: later sleeps of it say nothing */
};

void idle_polling_init(struct idle_polling *polling, uint64_t most_ns);

/* True as long as it goes on, `idle_ns` after the last work. */
static inline bool idle_polling_lasts(const struct idle_polling *polling, uint64_t idle_ns)
{
	return idle_ns < polling->ns;
}

/* There is work, `idle_ns` after the last; `looked`: polling found it, not a sleep. */
void idle_polling_work(struct idle_polling *polling, uint64_t now_ns, uint64_t idle_ns, bool looked);

/* There was none for `idle_ns`, and we have slept for `slept_ns`. */
void idle_polling_slept(struct idle_polling *polling, uint64_t now_ns, uint64_t idle_ns, uint64_t slept_ns);

#endif
