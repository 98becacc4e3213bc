/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "idle_polling.h"

#define LEAST_NS 2000ull    /* less than this is none */
#define CREDIT_PERIODS 2ull /* of full length */
/* Without credit. Then it is tried anew, and that takes all the credit: a hundredth of the time. */
#define PAUSE_NS 20000000ull

static void longer(struct idle_polling *polling, uint64_t now_ns)
{
	if (now_ns < polling->none_until_ns)
		return;
	polling->ns += polling->ns / 4 + LEAST_NS;
	if (polling->ns > polling->most_ns)
		polling->ns = polling->most_ns;
}

static void shorter(struct idle_polling *polling)
{
	polling->ns -= polling->ns / 4;
	if (polling->ns < LEAST_NS)
		polling->ns = 0;
}

static void refill(struct idle_polling *polling, uint64_t ns)
{
	uint64_t most = CREDIT_PERIODS * polling->most_ns;

	polling->credit_ns = polling->credit_ns + ns < most ? polling->credit_ns + ns : most;
}

/* Takes what was looked from the credit. False: there was not so much, and there is no idle polling for a while. */
static bool spend(struct idle_polling *polling, uint64_t now_ns, uint64_t ns)
{
	if (ns <= polling->credit_ns) {
		polling->credit_ns -= ns;
		return true;
	}
	polling->ns = 0;
	polling->none_until_ns = now_ns + PAUSE_NS;
	refill(polling, CREDIT_PERIODS * polling->most_ns);
	return false;
}

void idle_polling_init(struct idle_polling *polling, uint64_t most_ns)
{
	*polling = (struct idle_polling){ .most_ns = most_ns, .ns = most_ns, .credit_ns = CREDIT_PERIODS * most_ns };
}

void idle_polling_work(struct idle_polling *polling, uint64_t now_ns, uint64_t idle_ns, bool looked)
{
	polling->judged = false;
	if (!looked)
		return;
	refill(polling, polling->most_ns);
	if (spend(polling, now_ns, idle_ns))
		longer(polling, now_ns);
}

void idle_polling_slept(struct idle_polling *polling, uint64_t now_ns, uint64_t idle_ns, uint64_t slept_ns)
{
	if (polling->judged)
		return;
	polling->judged = true;
	if (polling->ns && !spend(polling, now_ns, idle_ns))
		return;
	if (idle_ns + slept_ns < polling->most_ns)
		longer(polling, now_ns); /* a little more patience would have been enough */
	else
		shorter(polling);
}
