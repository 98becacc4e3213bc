/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The least that any stack outside the kernel does for a packet, and nothing else: a "worker" takes a datagram off a tap,
 * hands it to a "program" over a UNIX socket, gets it back, and writes it to the tap with its ends exchanged. No protocol,
 * no buffers, no sockets of its own. The client asks through the kernel, as the benchmarks' clients do.
 *
 *   tap_relay CPU_SERVER CPU_CLIENT PAUSE_MS   one line of JSON: round trip in us, median; busy, and after a pause each
 *
 * What a first packet costs here no stack with a worker and a program can undercut. Runs in a network namespace of its own.
 */
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
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUSY_ROUNDS 2000
#define IDLE_ROUNDS 50
#define PATIENCE_S 5
#define NAME "relay"
#define HERE "192.0.2.1"
#define THERE "192.0.2.2"
#define PORT 7

enum { ETHERNET_TYPE = 12, IP_PROTOCOL = 23, IP_FROM = 26, IP_TO = 30, UDP_FROM = 34, UDP_TO = 36 };

static void die(const char *what)
{
	fprintf(stderr, "tap_relay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void pin(const char *cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)atoi(cpu), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static struct sockaddr_in address(const char *text)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = inet_addr(text) };
}

/* A tap that is up, has our address, and knows the other's, so that no ARP has to be answered. */
static int make_tap(void)
{
	struct ifreq name = { .ifr_name = NAME, .ifr_flags = IFF_TAP | IFF_NO_PI }, request = { .ifr_name = NAME };
	struct sockaddr_in here = address(HERE), mask = address("255.255.255.0"), there = address(THERE);
	struct arpreq arp = { .arp_flags = ATF_PERM | ATF_COM, .arp_dev = NAME, .arp_ha.sa_family = ARPHRD_ETHER };
	int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK), inet = socket(AF_INET, SOCK_DGRAM, 0);

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

static void exchange(uint8_t *a, uint8_t *b, int n)
{
	while (n--) {
		uint8_t was = a[n];

		a[n] = b[n];
		b[n] = was;
	}
}

static void program(int worker)
{
	char datagram[2048];
	ssize_t n;

	while ((n = recv(worker, datagram, sizeof(datagram), 0)) > 0)
		if (send(worker, datagram, (size_t)n, 0) != n)
			die("send");
	exit(0);
}

static void worker(int tap, int app)
{
	int queue = epoll_create1(0), fds[] = { tap, app };
	struct epoll_event event = { .events = EPOLLIN };
	uint8_t frame[2048];

	for (int i = 0; i < 2; i++) {
		event.data.fd = fds[i];
		if (epoll_ctl(queue, EPOLL_CTL_ADD, fds[i], &event))
			die("epoll_ctl");
	}
	while (epoll_wait(queue, &event, 1, -1) >= 0) {
		ssize_t n = read(event.data.fd, frame, sizeof(frame));

		if (n <= 0 || (event.data.fd == tap && (frame[ETHERNET_TYPE] != 8 || frame[IP_PROTOCOL] != IPPROTO_UDP)))
			continue;
		if (event.data.fd == tap) {
			exchange(frame, frame + 6, 6);
			exchange(frame + IP_FROM, frame + IP_TO, 4);
			exchange(frame + UDP_FROM, frame + UDP_TO, 2);
		}
		if (write(event.data.fd == tap ? app : tap, frame, (size_t)n) != n)
			die("write");
	}
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double median_us(int fd, int rounds, long pause_ms)
{
	static uint64_t took[BUSY_ROUNDS];
	struct timespec pause = { pause_ms / 1000, pause_ms % 1000 * 1000000 }, before, after;
	char datagram[64] = "";

	for (int i = 0; i < rounds; i++) {
		if (pause_ms)
			nanosleep(&pause, NULL);
		clock_gettime(CLOCK_MONOTONIC, &before);
		if (send(fd, datagram, sizeof(datagram), 0) < 0 || recv(fd, datagram, sizeof(datagram), 0) < 0)
			die("no answer");
		clock_gettime(CLOCK_MONOTONIC, &after);
		took[i] = (uint64_t)(after.tv_sec - before.tv_sec) * 1000000000u + (uint64_t)after.tv_nsec -
		          (uint64_t)before.tv_nsec;
	}
	qsort(took, (size_t)rounds, sizeof(*took), by_size);
	return (double)took[rounds / 2] / 1000.0;
}

static void child(void (*run)(int, int), const char *cpu, int tap, int fd)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(cpu);
	run(tap, fd);
	exit(0);
}

static void run_program(int tap, int fd)
{
	close(tap);
	program(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_in there = address(THERE);
	struct timeval patience = { .tv_sec = PATIENCE_S };
	int tap, ends[2], fd;
	double busy, idle;

	if (argc != 4) {
		fprintf(stderr, "usage: tap_relay CPU_SERVER CPU_CLIENT PAUSE_MS\n");
		return 64;
	}
	if (unshare(CLONE_NEWNET))
		die("unshare");
	tap = make_tap();
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends))
		die("socketpair");
	child(run_program, argv[1], tap, ends[1]);
	child(worker, argv[1], tap, ends[0]);
	pin(argv[2]);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof(there)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		die("client");
	median_us(fd, 100, 0);
	busy = median_us(fd, BUSY_ROUNDS, 0);
	idle = median_us(fd, IDLE_ROUNDS, atol(argv[3]));
	printf("{\"busy_us\": %.2f, \"idle_us\": %.2f}\n", busy, idle);
	return 0;
}
