/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * One turn: what the port has -> lwIP; what other workers hand over; what applications ask; timers; then frames out, and
 * the wakings of applications and workers. Each source has a budget, so that none starves another.
 *
 * A turn without work starts idle polling (idle_polling.h): more turns, yielding the CPU now and then. Then we sleep, in two
 * phases: declare, fence, look again, sleep. The longer the silence the longer the sleeps: after a long one the caches are cold,
 * and the next packet takes several times as long.
 *
 * A program that was rung and runs on our CPU cannot answer while we poll. A yield does not help: the scheduler goes by the time
 * each process has had, and gives the CPU back to us until that is even. So we hand over: we sleep until something comes.
 */
#include "loop.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <rte_mbuf.h>

#include <lwip/stats.h>

#include <gazelle/atomic.h>
#include <gazelle/worker_page.h>

#include "apps/apps.h"
#include "core/clock.h"
#include "core/closer.h"
#include "tcp/flows.h"
#include "idle_polling.h"
#include "net/handover.h"
#include "net/kernel_neighbours.h"
#include "net/netif.h"
#include "shared/page.h"
#include "port/port.h"
#include "net/steer.h"
#include "tcp/tcp_table.h"
#include "socket/trace.h"
#include "core/worker.h"

#define NS_PER_MS 1000000ull
#define BURST_MAX 512u
#define STEER_BUDGET 256u
#define EVENTS 32
#define EVENTS_EVERY_NS 500000ull /* under load: control sockets are looked at so often */
#define BEAT_NS (400 * NS_PER_MS) /* an idle worker's heartbeat; worker_page.h promises 500 ms */
#define YIELD_EVERY 16u           /* empty turns */
#define NAP_NS (4 * NS_PER_MS)    /* a timer nearer than the next tick of the clock would have to be set each time */
#define NAP_PART 16u              /* ...later a sleep lasts at most this part of the silence before it */
#define PROMPT_AFTER_NS NS_PER_MS /* a sleep as long as that: there was silence, or somebody stays on the CPU */
#define PROMPT_NS (50 * NS_PER_MS)
#define DRAIN_NS (900 * NS_PER_MS)
#define BEHIND_NS (200 * NS_PER_MS) /* timers are at most so late while the port has more than we take */

/* Set by the signal handler, which also writes stop_fd: a sleep that has just begun ends. */
static volatile sig_atomic_t stop_wanted;
static int stop_fd = -1;

static void on_stop(int signal)
{
	uint64_t one = 1;
	int saved = errno;

	stop_wanted = 1;
	if (write(stop_fd, &one, sizeof(one)) < 0)
		stop_wanted = 1; /* full: it is readable anyway */
	errno = saved;
}

static int watch(struct protocol_stack *stack, int fd, void *mark)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = mark };

	return epoll_ctl(stack->epoll_fd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

int loop_open(struct protocol_stack *stack)
{
	struct sigaction stop = { .sa_handler = on_stop }, ignore = { .sa_handler = SIG_IGN };
	int err;

	stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (stop_fd < 0)
		return -errno;
	err = watch(stack, stop_fd, &stop_fd);
	if (!err && (sigaction(SIGTERM, &stop, NULL) || sigaction(SIGINT, &stop, NULL) ||
	             sigaction(SIGPIPE, &ignore, NULL) || sigaction(SIGHUP, &ignore, NULL)))
		err = -errno;
	if (err) {
		close(stop_fd);
		stop_fd = -1;
		return err;
	}
	prctl(PR_SET_TIMERSLACK, 1000UL); /* a timed sleep ends within a microsecond of its time, not 50 */
	return 0;
}

/*
 * Handles events of applications and workers; waits for them, or for frames. The port is not in the epoll set: the kernel would
 * then note each frame there, whether we are awake or not, in the time of the process that sends it.
 */
static void take_events(struct protocol_stack *stack, int timeout_ms)
{
	struct epoll_event events[EVENTS];
	int n;

	if (timeout_ms && stack->port->wait_fd >= 0) {
		struct pollfd fds[] = { { .fd = stack->epoll_fd, .events = POLLIN },
			                { .fd = stack->port->wait_fd, .events = POLLIN } };

		if (poll(fds, 2, timeout_ms) <= 0 || !fds[0].revents)
			return;
		timeout_ms = 0;
	}
	n = epoll_wait(stack->epoll_fd, events, EVENTS, timeout_ms);

	for (int i = 0; i < n; i++) {
		void *mark = events[i].data.ptr;

		if (mark == &stop_fd || mark == CLOSER_MARK)
			continue; /* the next turn sees by itself what there is to do */
		if (mark == &stack->handover)
			handover_woken(stack);
		else if (!kernel_neighbours_event(stack, mark))
			apps_event(stack, mark, events[i].events);
	}
}

/*
 * What the port still has may acknowledge what would time out now, and a retransmission is more work when there is least time
 * for it. So a worker that is behind reads first, and lets TCP's clock go more slowly.
 */
static void tcp_timers(struct protocol_stack *stack, bool behind)
{
	if (behind && stack->now_ns - stack->timers_ns < BEHIND_NS)
		return;
	stack->timers_ns = stack->now_ns;
	tcp_table_timers(stack->now_ns);
}

static uint32_t turn(struct protocol_stack *stack)
{
	struct rte_mbuf *frames[BURST_MAX];
	uint32_t budget = stack->group->nic_read_number < BURST_MAX ? stack->group->nic_read_number : BURST_MAX;
	uint32_t work, n;

	stack->now_ns = monotonic_ns();
	tcp_table_clock(stack->now_ns);
	netif_timers(stack);
	page_beat(stack);
	n = stack->port->ops->receive(stack->port, frames, (uint16_t)budget);
	if (__builtin_expect(stack->tracing, 0))
		trace_received(stack);
	for (uint32_t i = 0; i < n; i++)
		steer_input(stack, frames[i]);
	work = n;
	for (uint32_t i = 0, waiting = netif_looped(); i < waiting && i < STEER_BUDGET; i++, work++)
		steer_input(stack, netif_take_looped());
	work += steer_poll(stack, STEER_BUDGET);
	work += apps_poll(stack);
	work += flows_tell_peers(stack);
	tcp_timers(stack, n == budget);
	netif_flush(stack);
	if (__builtin_expect(stack->tracing, 0))
		trace_sent(stack);
	handover_flush(stack);
	apps_flush(stack);
	return work;
}

/* The supervisor may have written another spin_us into the group page. */
static void follow_spin(struct protocol_stack *stack, struct idle_polling *polling)
{
	uint64_t most_ns = stack->group->spin_us * 1000ull;

	if (most_ns != polling->most_ns)
		idle_polling_init(polling, most_ns);
}

static void publish_gauges(struct protocol_stack *stack)
{
	worker_gauge(stack, GZ_COUNT_retransmits, lwip_stats.mib2.tcpretranssegs);
}

/* How long a sleep may last, `idle_ns` after the last work. Milliseconds rounded up, so that a timer is due when it ends. */
static int sleep_ms(const struct protocol_stack *stack, uint64_t idle_ns)
{
	uint64_t ns = idle_ns / NAP_PART, tcp = tcp_table_next_timer(stack->now_ns);

	if (ns < NAP_NS)
		ns = NAP_NS;
	if (ns > BEAT_NS)
		ns = BEAT_NS;
	if (tcp < ns)
		ns = tcp;
	if (stack->port->always_poll && ns > NS_PER_MS)
		ns = NS_PER_MS;
	return (int)((ns + NS_PER_MS - 1) / NS_PER_MS);
}

/* Sleeps unless something is waiting; `idle_ns` as for sleep_ms. Returns the nanoseconds slept; 0: there was work. */
static uint64_t sleep_until_work(struct protocol_stack *stack, uint64_t idle_ns)
{
	uint64_t before = monotonic_ns(), after;
	int timeout = sleep_ms(stack, idle_ns);

	if (!++stack->sleeps)
		stack->sleeps = 1;
	gz_store(&stack->page->asleep, stack->sleeps);
	gz_fence(); /* pairs with the fence of the process that rings a bell or fills a ring, between that and reading `asleep` */
	if (apps_pending(stack) || handover_pending(stack) || stop_wanted)
		timeout = 0;
	take_events(stack, timeout);
	gz_store(&stack->page->asleep, 0);
	if (!timeout)
		return 0;
	worker_count(stack, GZ_COUNT_sleeps, 1);
	after = monotonic_ns();
	return after - before;
}

/*
 * Under SCHED_BATCH a process that is woken does not take the CPU from the one that runs. A program we hand over to then answers
 * all requests it has, not one request until the next packet, and a client on our CPU sends all it has to send: we find more to
 * do when it is our turn. Beside a process that does not leave the CPU by itself our turn comes after milliseconds. That is worth
 * it while there is much to do, in a hand-over; a program that waits for a single packet is to be served as soon as it comes.
 */
struct manners {
	bool polite;
	uint64_t prompt_until_ns;
};

static uint64_t sleep_with(struct protocol_stack *stack, struct manners *manners, bool polite, uint64_t idle_ns)
{
	struct sched_param none = { 0 };
	uint64_t slept;

	if (polite != manners->polite && !sched_setscheduler(0, polite ? SCHED_BATCH : SCHED_OTHER, &none))
		manners->polite = polite;
	slept = sleep_until_work(stack, idle_ns);
	if (slept > PROMPT_AFTER_NS)
		manners->prompt_until_ns = stack->now_ns + slept + PROMPT_NS;
	return slept;
}

/* The CPU is wanted by a program that has something to do for us. */
static void hand_over(struct protocol_stack *stack, struct manners *manners)
{
	sleep_with(stack, manners, true, BEAT_NS * NAP_PART); /* no naps: it is at work */
}

/* After an empty turn that began `idle_ns` after the last work: look on, or sleep. True: it was a look. */
static bool idle(struct protocol_stack *stack, struct idle_polling *polling, struct manners *manners, uint64_t idle_ns,
                 uint32_t looks)
{
	uint64_t slept;

	if (stack->group->idle != GZ_IDLE_POLL && apps_wait_here(stack)) {
		hand_over(stack, manners);
		return false;
	}
	if (stack->group->idle == GZ_IDLE_POLL || idle_polling_lasts(polling, idle_ns)) {
		if (looks % YIELD_EVERY == YIELD_EVERY - 1)
			sched_yield();
		else
			gz_pause();
		return true;
	}
	publish_gauges(stack);
	follow_spin(stack, polling);
	slept = sleep_with(stack, manners, stack->now_ns >= manners->prompt_until_ns, idle_ns);
	if (slept)
		idle_polling_slept(polling, stack->now_ns, idle_ns, slept);
	return false;
}

static void drain(struct protocol_stack *stack)
{
	uint64_t until = monotonic_ns() + DRAIN_NS;

	stack->draining = true;
	page_set_state(stack, GZ_WORKER_DRAINING);
	apps_drain(stack);
	while (monotonic_ns() < until && tcp_table_count(false)) {
		if (!turn(stack))
			take_events(stack, 2);
	}
	turn(stack);
	page_set_state(stack, GZ_WORKER_GONE);
}

void loop_run(struct protocol_stack *stack)
{
	uint64_t work_ns = monotonic_ns(), events_ns = work_ns;
	struct manners manners = { 0 };
	struct idle_polling polling;
	uint32_t looks = 0;

	idle_polling_init(&polling, stack->group->spin_us * 1000ull);
	while (!stop_wanted) {
		uint32_t work = turn(stack);

		worker_count(stack, GZ_COUNT_turns, 1);
		if (stack->now_ns - events_ns >= EVENTS_EVERY_NS) {
			events_ns = stack->now_ns;
			publish_gauges(stack);
			follow_spin(stack, &polling);
			take_events(stack, 0);
		}
		if (stack->readers_behind) {
			stack->readers_behind = false;
			if (apps_wait_here(stack))
				hand_over(stack, &manners);
		}
		if (work) {
			idle_polling_work(&polling, stack->now_ns, stack->now_ns - work_ns, looks > 0);
			looks = 0;
			work_ns = stack->now_ns;
			continue;
		}
		looks = idle(stack, &polling, &manners, stack->now_ns - work_ns, looks) ? looks + 1 : 0;
	}
	drain(stack);
}
