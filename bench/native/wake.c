/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What waking costs on this machine, whoever wakes: two threads hand an eventfd to and fro, on CPUs A and B.
 *
 *   wake CPU_A CPU_B      one line of JSON: round trip in us, median; busy, and after 20 ms of sleep of both
 *
 * Nothing that sleeps can answer sooner than the second figure, whatever stack is in between.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define BUSY_ROUNDS 4000
#define IDLE_ROUNDS 50
#define WARM_ROUNDS 100

static int there, back;

static void die(const char *what)
{
	fprintf(stderr, "wake: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static void hand(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != sizeof(one))
		die("write");
}

static void await(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) != sizeof(count))
		die("read");
}

static void *answer(void *cpu)
{
	pin(*(int *)cpu);
	for (int i = 0; i < WARM_ROUNDS + BUSY_ROUNDS + IDLE_ROUNDS; i++) {
		await(there);
		hand(back);
	}
	return NULL;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double median_us(int rounds, int idle)
{
	static uint64_t took[BUSY_ROUNDS];
	struct timespec pause = { 0, 20 * 1000000 }, before, after;

	for (int i = 0; i < rounds; i++) {
		if (idle)
			nanosleep(&pause, NULL);
		clock_gettime(CLOCK_MONOTONIC, &before);
		hand(there);
		await(back);
		clock_gettime(CLOCK_MONOTONIC, &after);
		took[i] = (uint64_t)(after.tv_sec - before.tv_sec) * 1000000000u + (uint64_t)after.tv_nsec -
		          (uint64_t)before.tv_nsec;
	}
	qsort(took, (size_t)rounds, sizeof(*took), by_size);
	return (double)took[rounds / 2] / 1000.0;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	double busy, idle;
	int cpu;

	if (argc != 3) {
		fprintf(stderr, "usage: wake CPU_A CPU_B\n");
		return 64;
	}
	there = eventfd(0, 0);
	back = eventfd(0, 0);
	cpu = atoi(argv[2]);
	if (there < 0 || back < 0 || pthread_create(&thread, NULL, answer, &cpu))
		die("start");
	pin(atoi(argv[1]));
	median_us(WARM_ROUNDS, 0);
	busy = median_us(BUSY_ROUNDS, 0);
	idle = median_us(IDLE_ROUNDS, 1);
	pthread_join(thread, NULL);
	printf("{\"busy_us\": %.2f, \"idle_us\": %.2f}\n", busy, idle);
	return 0;
}
