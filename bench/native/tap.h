/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What the programs that measure a tap's own limits share: a tap in a network namespace of its own, with the kernel's end
 * at TAP_HERE and somebody at TAP_THERE whom the program plays, and children on a CPU each that end with their parent.
 */
#ifndef BENCH_TAP_H
#define BENCH_TAP_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TAP_HERE "192.0.2.1"
#define TAP_THERE "192.0.2.2"

static inline void die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

static inline void pin(const char *cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)atoi(cpu), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static inline struct sockaddr_in address(const char *text, uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(text) };
}

/* A tap that is up in a new namespace, has TAP_HERE, and knows TAP_THERE, so that no ARP has to be answered. */
static inline int make_tap(short more_flags)
{
	struct ifreq name = { .ifr_name = "tap", .ifr_flags = IFF_TAP | IFF_NO_PI }, request = { .ifr_name = "tap" };
	struct sockaddr_in here = address(TAP_HERE, 0), mask = address("255.255.255.0", 0), there = address(TAP_THERE, 0);
	struct arpreq arp = { .arp_flags = ATF_PERM | ATF_COM, .arp_dev = "tap", .arp_ha.sa_family = ARPHRD_ETHER };
	int tap, inet;

	if (unshare(CLONE_NEWNET))
		die("unshare");
	name.ifr_flags |= more_flags;
	tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
	inet = socket(AF_INET, SOCK_DGRAM, 0);
	if (tap < 0 || inet < 0 || ioctl(tap, TUNSETIFF, &name))
		die("tap");
	memcpy(&request.ifr_addr, &here, sizeof(here));
	if (ioctl(inet, SIOCSIFADDR, &request))
		die("address");
	memcpy(&request.ifr_netmask, &mask, sizeof(mask));
	if (ioctl(inet, SIOCSIFNETMASK, &request))
		die("netmask");
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(inet, SIOCSIFFLAGS, &request))
		die("up");
	memcpy(&arp.arp_pa, &there, sizeof(there));
	memcpy(arp.arp_ha.sa_data, "\2\0\0\0\0\2", 6);
	if (ioctl(inet, SIOCSARP, &arp))
		die("neighbour");
	close(inet);
	return tap;
}

/* Forks a child on a CPU; it ends with us. As fork: 0 in the child. */
static inline pid_t child_on(const char *cpu)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pin(cpu);
	}
	return pid;
}

static inline void end_child(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

#endif
