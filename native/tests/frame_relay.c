/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * frame_relay: a bad cable for tests. Relays Ethernet frames between two interfaces in both directions and loses,
 * reorders and duplicates some of them, chosen by a seed: the same frames in the same order meet the same fate.
 *
 *     frame_relay --a veth1 --b veth2 --seed 7 --loss 0.01 --reorder 0.01 --duplicate 0.01 --seconds 60
 *
 * Probabilities are per frame, 0 to 1. A reordered frame waits for 1 to HOLD_BEHIND_MAX later frames of its direction
 * to pass, at most HOLD_NS. Says "relaying" on stderr once frames pass, ends after --seconds or on SIGTERM or SIGINT,
 * and then prints one line of JSON: what became of the frames. Needs CAP_NET_RAW and CAP_NET_ADMIN.
 *
 * Frames are relayed as they are. A kernel that leaves checksums or segmentation to its device must be told not to on
 * the far ends (`ethtool -K IF tx off tso off gso off gro off`); frames that came with an unfinished checksum
 * are counted.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64u
#define FRAME_MAX 16384u /* more than any MTU a test uses; longer frames are counted as refused */
#define HOLD_MAX 128u    /* frames held back at once in one direction */
#define HOLD_BEHIND_MAX 8u
#define HOLD_NS 3000000ull
#define OUT_MAX (2u * (BATCH + HOLD_MAX))
#define SOCKET_BUFFER (16 << 20)
#define NS_PER_S 1000000000ull

struct frame {
	uint32_t length;
	uint8_t bytes[FRAME_MAX];
};

struct held {
	struct frame *frame; /* NULL: free place */
	uint32_t behind;     /* frames that still have to pass */
	uint32_t copies;
	uint64_t until_ns;
};

struct counters {
	uint64_t received, sent, lost, reordered, duplicated, refused, overflow, unfinished_checksum;
};

struct direction {
	const char *name;
	int in, out;             /* packet sockets */
	uint64_t random;         /* state of its own: the two directions do not disturb each other */
	struct frame *batch;     /* BATCH frames to receive into */
	struct frame *hold_room; /* HOLD_MAX frames, one per place of held[] */
	struct held held[HOLD_MAX];
	uint32_t held_count;
	struct mmsghdr out_messages[OUT_MAX];
	struct iovec out_vectors[OUT_MAX];
	uint32_t out_count;
	struct counters counters;
};

struct chances {
	double loss, reorder, duplicate;
};

struct settings {
	const char *interfaces[2];
	struct chances chances;
	double seed, seconds;
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
	(void)number;
	stopped = 1;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* The next number of a splitmix64 sequence. */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static bool random_chance(uint64_t *state, double probability)
{
	return (double)(random_next(state) >> 11) * 0x1p-53 < probability;
}

/* Opens a promiscuous packet socket that sees what arrives at an interface, not what leaves it. -errno on failure. */
static int packet_socket(const char *interface)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	struct packet_mreq promiscuous = { .mr_type = PACKET_MR_PROMISC };
	const int one = 1, size = SOCKET_BUFFER;
	int fd, err;

	address.sll_ifindex = (int)if_nametoindex(interface);
	if (!address.sll_ifindex)
		return -errno;
	promiscuous.mr_ifindex = address.sll_ifindex;
	/* Protocol 0 until bound: else frames of every other interface arrive in between. */
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof(promiscuous)) < 0 ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

/* Sends what is queued. A full device is waited for, 10 ms at most; what it still refuses is counted, not retried. */
static void direction_flush(struct direction *d)
{
	uint32_t done = 0;

	while (done < d->out_count) {
		int sent = sendmmsg(d->out, d->out_messages + done, d->out_count - done, MSG_DONTWAIT);

		if (sent > 0) {
			done += (uint32_t)sent;
			d->counters.sent += (uint32_t)sent;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN) {
			struct pollfd writable = { .fd = d->out, .events = POLLOUT };

			if (poll(&writable, 1, 10) > 0)
				continue;
		}
		done++;
		d->counters.refused++;
	}
	d->out_count = 0;
}

/* Queues a frame; its bytes must stay until the next flush. */
static void direction_send(struct direction *d, struct frame *frame, uint32_t copies)
{
	for (; copies; copies--) {
		struct iovec *vector = &d->out_vectors[d->out_count];

		*vector = (struct iovec){ .iov_base = frame->bytes, .iov_len = frame->length };
		d->out_messages[d->out_count++] = (struct mmsghdr){ .msg_hdr = { .msg_iov = vector, .msg_iovlen = 1 } };
	}
}

/* Lets go of the frames whose time has come; after a frame has passed, `passed` is 1. */
static void direction_release(struct direction *d, uint32_t passed, uint64_t now)
{
	for (uint32_t i = 0; d->held_count && i < HOLD_MAX; i++) {
		struct held *held = &d->held[i];

		if (!held->frame)
			continue;
		held->behind -= passed;
		if (held->behind && now < held->until_ns)
			continue;
		direction_send(d, held->frame, held->copies);
		/* The place is taken again by a later frame of this batch only after a flush: see direction_hold. */
		held->frame = NULL;
		d->held_count--;
	}
}

/* Keeps a copy of a frame back until `behind` later ones have passed. The caller has made sure of a free place. */
static void direction_hold(struct direction *d, const struct frame *frame, uint32_t copies, uint32_t behind, uint64_t now)
{
	uint32_t i = 0;

	if (d->out_count)
		direction_flush(d); /* frames just released still lie in the room we are about to write to */
	while (d->held[i].frame)
		i++;
	d->held[i] = (struct held){ &d->hold_room[i], behind, copies, now + HOLD_NS };
	d->hold_room[i].length = frame->length;
	memcpy(d->hold_room[i].bytes, frame->bytes, frame->length);
	d->held_count++;
	d->counters.reordered++;
}

/* Decides the fate of one frame. Draws as many random numbers for each, so that fates do not depend on each other. */
static void direction_relay(struct direction *d, struct frame *frame, const struct chances *chances, uint64_t now)
{
	bool lost = random_chance(&d->random, chances->loss);
	bool reordered = random_chance(&d->random, chances->reorder);
	bool duplicated = random_chance(&d->random, chances->duplicate);
	uint32_t behind = 1u + (uint32_t)(random_next(&d->random) % HOLD_BEHIND_MAX);

	d->counters.received++;
	if (lost) {
		d->counters.lost++;
		return;
	}
	d->counters.duplicated += duplicated;
	if (reordered && d->held_count < HOLD_MAX) {
		direction_hold(d, frame, 1u + duplicated, behind, now);
		return;
	}
	direction_send(d, frame, 1u + duplicated);
	direction_release(d, 1, now);
}

static bool checksum_unfinished(struct msghdr *message)
{
	struct cmsghdr *control = CMSG_FIRSTHDR(message);
	struct tpacket_auxdata aux;

	if (!control || control->cmsg_level != SOL_PACKET || control->cmsg_type != PACKET_AUXDATA)
		return false;
	memcpy(&aux, CMSG_DATA(control), sizeof(aux));
	return aux.tp_status & TP_STATUS_CSUMNOTREADY;
}

/* Receives one batch and relays it. Returns how many frames came; 0 also when the interface is down. */
static uint32_t direction_turn(struct direction *d, const struct chances *chances)
{
	union {
		struct cmsghdr align;
		uint8_t bytes[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
	} controls[BATCH];
	struct mmsghdr messages[BATCH];
	struct iovec vectors[BATCH];
	uint64_t now;
	int count;

	for (uint32_t i = 0; i < BATCH; i++) {
		vectors[i] = (struct iovec){ .iov_base = d->batch[i].bytes, .iov_len = FRAME_MAX };
		messages[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &vectors[i],
			                                     .msg_iovlen = 1,
			                                     .msg_control = &controls[i],
			                                     .msg_controllen = sizeof(controls[i]) } };
	}
	count = recvmmsg(d->in, messages, BATCH, MSG_DONTWAIT, NULL);
	now = now_ns();
	for (int i = 0; i < count; i++) {
		if (messages[i].msg_hdr.msg_flags & MSG_TRUNC) {
			d->counters.received++;
			d->counters.refused++;
			continue;
		}
		d->counters.unfinished_checksum += checksum_unfinished(&messages[i].msg_hdr);
		d->batch[i].length = messages[i].msg_len;
		direction_relay(d, &d->batch[i], chances, now);
	}
	direction_release(d, 0, now);
	direction_flush(d);
	return count > 0 ? (uint32_t)count : 0;
}

static int direction_open(struct direction *d, const char *name, int in, int out, uint64_t seed)
{
	d->name = name;
	d->in = in;
	d->out = out;
	d->random = seed;
	d->batch = calloc(BATCH, sizeof(*d->batch));
	d->hold_room = calloc(HOLD_MAX, sizeof(*d->hold_room));
	return d->batch && d->hold_room ? 0 : -ENOMEM;
}

static void direction_print(struct direction *d, const char *after)
{
	const struct counters *c = &d->counters;
	struct tpacket_stats kernel = { 0 };
	socklen_t length = sizeof(kernel);

	if (getsockopt(d->in, SOL_PACKET, PACKET_STATISTICS, &kernel, &length) == 0)
		d->counters.overflow = kernel.tp_drops;
	printf("\"%s\": {\"received\": %" PRIu64 ", \"sent\": %" PRIu64 ", \"lost\": %" PRIu64
	       ", \"reordered\": %" PRIu64 ", \"duplicated\": %" PRIu64 ", \"refused\": %" PRIu64
	       ", \"overflow\": %" PRIu64 ", \"unfinished_checksum\": %" PRIu64 ", \"held\": %u}%s",
	       d->name, c->received, c->sent, c->lost, c->reordered, c->duplicated, c->refused, c->overflow,
	       c->unfinished_checksum, d->held_count, after);
}

/* Returns how long to sleep: to the next held frame's time, or to the end; NULL when there is nothing to wait for. */
static const struct timespec *sleep_time(const struct direction *d, uint64_t end, struct timespec *room)
{
	uint64_t now = now_ns(), until = end;

	for (uint32_t way = 0; way < 2; way++) {
		for (uint32_t i = 0; d[way].held_count && i < HOLD_MAX; i++) {
			if (d[way].held[i].frame && d[way].held[i].until_ns < until)
				until = d[way].held[i].until_ns;
		}
	}
	if (until == UINT64_MAX)
		return NULL;
	until = until > now ? until - now : 0;
	*room = (struct timespec){ .tv_sec = (time_t)(until / NS_PER_S), .tv_nsec = (long)(until % NS_PER_S) };
	return room;
}

static int usage(void)
{
	fputs("usage: frame_relay --a IF --b IF [--seed N] [--loss P] [--reorder P] [--duplicate P] [--seconds S]\n",
	      stderr);
	return -EINVAL;
}

/* Fills `settings` from the command line, or says what is wrong and returns -EINVAL. */
static int settings_parse(struct settings *settings, int argc, char **argv)
{
	static const struct option options[] = {
		{ "a", required_argument, NULL, 'a' },       { "b", required_argument, NULL, 'b' },
		{ "seed", required_argument, NULL, 's' },    { "loss", required_argument, NULL, 'l' },
		{ "reorder", required_argument, NULL, 'r' }, { "duplicate", required_argument, NULL, 'd' },
		{ "seconds", required_argument, NULL, 't' }, { 0 },
	};
	double *const numbers[] = {
		['s'] = &settings->seed,
		['l'] = &settings->chances.loss,
		['r'] = &settings->chances.reorder,
		['d'] = &settings->chances.duplicate,
		['t'] = &settings->seconds,
	};
	const double most[] = { ['s'] = 0x1p53, ['l'] = 1, ['r'] = 1, ['d'] = 1, ['t'] = 1e6 };
	int option, at;

	while ((option = getopt_long(argc, argv, "", options, &at)) != -1) {
		char *end;

		if (option == '?')
			return usage();
		if (option == 'a' || option == 'b') {
			settings->interfaces[option - 'a'] = optarg;
			continue;
		}
		*numbers[option] = strtod(optarg, &end);
		if (end == optarg || *end || !(*numbers[option] >= 0 && *numbers[option] <= most[option])) {
			fprintf(stderr, "frame_relay: --%s %s: expected a number from 0 to %g\n", options[at].name,
			        optarg, most[option]);
			return usage();
		}
	}
	return settings->interfaces[0] && settings->interfaces[1] && optind == argc ? 0 : usage();
}

/* Makes SIGTERM and SIGINT arrive in ppoll only, under the mask returned: none is lost between a look and a sleep. */
static sigset_t signals_prepare(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t blocked, sleeping;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigprocmask(SIG_BLOCK, &blocked, &sleeping);
	sigdelset(&sleeping, SIGTERM);
	sigdelset(&sleeping, SIGINT);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	return sleeping;
}

static void relay(struct direction ways[2], const struct chances *chances, uint64_t end, const sigset_t *sleeping)
{
	while (!stopped && now_ns() < end) {
		struct pollfd ready[2] = { { .fd = ways[0].in, .events = POLLIN }, { .fd = ways[1].in, .events = POLLIN } };
		struct timespec room, none = { 0 };
		uint32_t frames = 0;

		for (int i = 0; i < 2; i++)
			frames += direction_turn(&ways[i], chances);
		/* Busy or not, signals get their chance. */
		ppoll(ready, 2, frames ? &none : sleep_time(ways, end, &room), sleeping);
	}
}

int main(int argc, char **argv)
{
	static struct direction ways[2];
	struct settings settings = { .seed = 1 };
	uint64_t seed, start, end;
	sigset_t sleeping;
	int sockets[2];

	if (settings_parse(&settings, argc, argv) < 0)
		return 64;
	sleeping = signals_prepare();
	for (int i = 0; i < 2; i++) {
		sockets[i] = packet_socket(settings.interfaces[i]);
		if (sockets[i] < 0) {
			fprintf(stderr, "frame_relay: %s: %s\n", settings.interfaces[i], strerror(-sockets[i]));
			return 69;
		}
	}
	seed = (uint64_t)settings.seed;
	if (direction_open(&ways[0], "a_to_b", sockets[0], sockets[1], seed) < 0 ||
	    direction_open(&ways[1], "b_to_a", sockets[1], sockets[0], ~seed) < 0) {
		fprintf(stderr, "frame_relay: %s\n", strerror(ENOMEM));
		return 69;
	}
	start = now_ns();
	end = settings.seconds > 0 ? start + (uint64_t)(settings.seconds * (double)NS_PER_S) : UINT64_MAX;
	fprintf(stderr, "relaying %s <-> %s\n", settings.interfaces[0], settings.interfaces[1]);
	relay(ways, &settings.chances, end, &sleeping);

	printf("{\"seconds\": %.3f, ", (double)(now_ns() - start) / (double)NS_PER_S);
	direction_print(&ways[0], ", ");
	direction_print(&ways[1], "}\n");
	return 0;
}
