/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "lookout.h"

#define LEAST_NS 2000ull     /* less than this is none */
#define CREDIT_LOOKOUTS 2ull /* of full length */
/* Without credit. Then it is tried anew, and that takes all the credit: a hundredth of the time. */
#define PAUSE_NS 20000000ull

static void longer(struct lookout *lookout, uint64_t now_ns)
{
	if (now_ns < lookout->none_until_ns)
		return;
	lookout->ns += lookout->ns / 4 + LEAST_NS;
	if (lookout->ns > lookout->most_ns)
		lookout->ns = lookout->most_ns;
}

static void shorter(struct lookout *lookout)
{
	lookout->ns -= lookout->ns / 4;
	if (lookout->ns < LEAST_NS)
		lookout->ns = 0;
}

static void refill(struct lookout *lookout, uint64_t ns)
{
	uint64_t most = CREDIT_LOOKOUTS * lookout->most_ns;

	lookout->credit_ns = lookout->credit_ns + ns < most ? lookout->credit_ns + ns : most;
}

/* Takes what was looked from the credit. False: there was not so much, and there are no look-outs for a while. */
static bool spend(struct lookout *lookout, uint64_t now_ns, uint64_t ns)
{
	if (ns <= lookout->credit_ns) {
		lookout->credit_ns -= ns;
		return true;
	}
	lookout->ns = 0;
	lookout->none_until_ns = now_ns + PAUSE_NS;
	refill(lookout, CREDIT_LOOKOUTS * lookout->most_ns);
	return false;
}

void lookout_init(struct lookout *lookout, uint64_t most_ns)
{
	*lookout = (struct lookout){ .most_ns = most_ns, .ns = most_ns, .credit_ns = CREDIT_LOOKOUTS * most_ns };
}

void lookout_work(struct lookout *lookout, uint64_t now_ns, uint64_t idle_ns, bool looked)
{
	lookout->judged = false;
	if (!looked)
		return;
	refill(lookout, lookout->most_ns);
	if (spend(lookout, now_ns, idle_ns))
		longer(lookout, now_ns);
}

void lookout_slept(struct lookout *lookout, uint64_t now_ns, uint64_t idle_ns, uint64_t slept_ns)
{
	if (lookout->judged)
		return;
	lookout->judged = true;
	if (lookout->ns && !spend(lookout, now_ns, idle_ns))
		return;
	if (idle_ns + slept_ns < lookout->most_ns)
		longer(lookout, now_ns); /* a little more patience would have been enough */
	else
		shorter(lookout);
}
