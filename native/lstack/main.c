/* SPDX-License-Identifier: MulanPSL-2.0 */
/* lstack, the worker: an ordered list of beginnings, the loop, and _exit. */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <gazelle/group_page.h>

#include "shared/abi_dump.h"
#include "apps/apps.h"
#include "confine.h"
#include "core/closer.h"
#include "port/eal.h"
#include "tcp/flows.h"
#include "shared/group.h"
#include "tcp/heap.h"
#include "tcp/isn.h"
#include "core/clock.h"
#include "core/log.h"
#include "loop.h"
#include "port/mempool.h"
#include "net/kernel_neighbours.h"
#include "net/netif.h"
#include "shared/page.h"
#include "port/port.h"
#include "privileges.h"
#include "queue_lock.h"
#include "net/steer.h"
#include "tcp/syncookie.h"
#include "tcp/tcp_table.h"
#include "net/uplink.h"
#include "core/worker.h"

#define EXIT_USAGE 64
#define EXIT_START 69
#define ALREADY_SERVED "another worker serves it"

struct options {
	const char *group;
	uint32_t queue_id;
	int ready_fd;
};

/* Writes the one line that the supervisor waits for; after it the supervisor reads that descriptor no more. */
static void tell(int fd, const char *format, ...)
{
	char line[512];
	va_list args;
	int n;

	if (fd < 0)
		return;
	va_start(args, format);
	n = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (n >= (int)sizeof(line))
		n = sizeof(line) - 1;
	if (write(fd, line, (size_t)n) != n)
		log_info("nobody waits for the ready message");
	close(fd);
}

static bool parse_options(int argc, char **argv, struct options *options)
{
	static const struct option known[] = { { "group", required_argument, NULL, 'g' },
		                               { "queue", required_argument, NULL, 'q' },
		                               { "ready-fd", required_argument, NULL, 'r' },
		                               { "abi", no_argument, NULL, 'a' },
		                               { 0 } };
	bool queue = false;
	int c;

	*options = (struct options){ .ready_fd = -1 };
	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		char *end = NULL;

		switch (c) {
		case 'g':
			options->group = optarg;
			break;
		case 'q':
			options->queue_id = (uint32_t)strtoul(optarg, &end, 10);
			queue = end != optarg && !*end && options->queue_id < GZ_WORKERS_MAX;
			break;
		case 'r':
			options->ready_fd = (int)strtol(optarg, &end, 10);
			break;
		case 'a':
			abi_dump();
			exit(0);
		default:
			return false;
		}
	}
	return options->group && queue && optind == argc;
}

/* Affinity and the short name, before anything allocates: memory then comes from the right node. */
static int pin_to_cpu(const struct gz_worker_plan *plan)
{
	cpu_set_t cpus;

	prctl(PR_SET_NAME, plan->comm);
	if (plan->cpu < 0)
		return 0;
	CPU_ZERO(&cpus);
	CPU_SET((size_t)plan->cpu, &cpus);
	return sched_setaffinity(0, sizeof(cpus), &cpus) ? -errno : 0;
}

static int open_port(struct protocol_stack *stack, struct rte_mempool *pool)
{
	const struct port_setup setup = {
		.group = stack->group, .plan = stack->plan, .page = stack->page, .now_ns = &stack->now_ns, .pool = pool
	};

	switch (stack->group->driver) {
	case GZ_DRIVER_TAP:
		return port_tap_open(&setup, &stack->port);
	case GZ_DRIVER_ETHDEV:
		return port_ethdev_open(&setup, &stack->port);
	default:
		return port_none_open(&setup, &stack->port);
	}
}

/* True if the port is a PCI device; the others of DPDK sit on a socket of the kernel's. */
static bool is_pci(const struct protocol_stack *stack)
{
	return stack->group->driver == GZ_DRIVER_ETHDEV && !strstr(stack->plan->port_args, "--vdev");
}

/* Everything up to RUNNING. 0, or -errno with *step saying what failed. The process ends then: nothing is undone here. */
static int start(struct protocol_stack *stack, const char **step)
{
	struct rte_mempool *pool = NULL;
	int err;

#define STEP(what, call)            \
	do {                        \
		*step = what;       \
		err = (call);       \
		if (err < 0)        \
			return err; \
	} while (0)
	STEP("privileges", privileges_bound());
	STEP("cpu affinity", pin_to_cpu(stack->plan));
	STEP("worker page", page_open(stack));
	STEP("epoll", (stack->epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0 ? -errno : 0);
	STEP("random numbers", isn_open());
	STEP("DPDK", eal_open(stack->group, stack->plan, mempool_bytes(stack->group, stack->plan)));
	STEP("packet buffers", mempool_open(stack->group, stack->plan, &pool));
	STEP("port", open_port(stack, pool));
	memcpy(stack->page->mac, stack->port->mac, sizeof(stack->page->mac));
	STEP("connection table", tcp_table_open());
	STEP("uplink", uplink_open(stack));
	STEP("record of connections", flows_open(stack));
	STEP("packet rings", steer_open(stack));
	STEP("network interface", netif_open(stack));
	syncookie_open(stack);
	STEP("attach socket", apps_open(stack));
	STEP("event loop", loop_open(stack));
	STEP("kernel's neighbours", kernel_neighbours_open(stack));
	STEP("uplink", uplink_announce(stack));
	STEP("closing thread", closer_open(stack->epoll_fd));
	STEP("dropping privileges", privileges_drop(stack->group->run_uid, stack->group->run_gid));
	prctl(PR_SET_NAME, stack->plan->comm); /* DPDK has named the thread after itself */
	STEP("list of system calls", confine(is_pci(stack)));
#undef STEP
	return 0;
}

int main(int argc, char **argv)
{
	static struct protocol_stack stack;
	struct options options;
	const char *step = "";
	char why[256];
	int err;

	if (!parse_options(argc, argv, &options)) {
		fprintf(stderr, "usage: lstack --group PAGE --queue N [--ready-fd FD] | --abi\n");
		tell(options.ready_fd, "failed: wrong arguments\n");
		return EXIT_USAGE;
	}
	if (group_open(options.group, options.queue_id, &stack.group, why, sizeof(why))) {
		fprintf(stderr, "%s\n", why);
		tell(options.ready_fd, "failed: %s\n", why);
		return EXIT_START;
	}
	err = queue_lock(stack.group->run_dir, options.queue_id);
	if (err) {
		log_info("queue %u: %s", options.queue_id, err == -EBUSY ? ALREADY_SERVED : strerror(-err));
		tell(options.ready_fd, "failed: queue %u: %s\n", options.queue_id,
		     err == -EBUSY ? ALREADY_SERVED : strerror(-err));
		return EXIT_START;
	}
	stack.queue_id = options.queue_id;
	stack.process_index = stack.group->process_index;
	stack.plan = &stack.group->workers[stack.queue_id];
	stack.role = stack.plan->role;
	stack.now_ns = monotonic_ns();
	stack.started_ns = stack.now_ns;
	heap_set_limit(0);
	err = start(&stack, &step);
	if (err) {
		log_info("%s: %s", step, strerror(-err));
		tell(options.ready_fd, "failed: %s: %s: %s\n", stack.plan->name, step, strerror(-err));
		return EXIT_START;
	}
	page_set_state(&stack, GZ_WORKER_RUNNING);
	log_info("%s ready: queue %u, cpu %d", stack.plan->name, stack.queue_id, stack.plan->cpu);
	tell(options.ready_fd, "ready\n");
	loop_run(&stack);
	log_info("%s ends", stack.plan->name);
	_exit(0); /* no exit handlers: DPDK's would close the port, see port_ethdev.c */
}
