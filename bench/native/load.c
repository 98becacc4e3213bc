/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A client that keeps many connections and works on a few of them: request out, whole answer in, next request.
 *
 *   load --to ADDRESS --port PORT --connections N [--busy M] [--from ADDRESS,ADDRESS] --request TEXT --response BYTES
 *        [--burst]
 *
 * It connects, says so, and then takes commands from standard input, one line of JSON for each:
 *   count N      N requests as fast as they are answered
 *   run MS       as many requests as fit
 *   gap N MS     N single requests on the first busy connection, each after a pause
 * With --burst it waits for a line before it connects, then begins all connects at once, and breaks all connections off at its end,
 * so that none of them rests in TIME-WAIT.
 * It ends with its input, or by itself when nothing is answered for ANSWER_MS.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 256
#define PENDING_MAX 256u /* connects under way at a time */
#define ANSWER_MS 10000
#define FROM_MAX 4

/* Latencies: 32 steps per power of two of nanoseconds, so a percentile is right to 3 %. */
#define STEP_BITS 5
#define STEPS (64u << STEP_BITS)

struct connection {
	int fd;
	uint32_t wanted; /* bytes of the answer still to come */
	uint64_t asked_ns;
};

static struct {
	struct sockaddr_in to, from[FROM_MAX];
	unsigned int froms, connections, busy, pending;
	int burst;
	const char *request;
	size_t request_size;
	uint32_t response;
	struct connection *all; /* connections[i * stride] for i < busy are the busy ones */
	unsigned int stride;
	int epoll;
	uint64_t histogram[STEPS];
} load;

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static unsigned int step_of(uint64_t ns)
{
	unsigned int top;

	if (ns < (1u << STEP_BITS))
		return (unsigned int)ns;
	top = 63u - (unsigned int)__builtin_clzll(ns);
	return ((top - STEP_BITS + 1) << STEP_BITS) | (unsigned int)((ns >> (top - STEP_BITS)) & ((1u << STEP_BITS) - 1));
}

static double step_us(unsigned int step)
{
	unsigned int power = step >> STEP_BITS, rest = step & ((1u << STEP_BITS) - 1);

	if (!power)
		return rest / 1000.0;
	return (double)((uint64_t)(rest | (1u << STEP_BITS)) << (power - 1)) / 1000.0;
}

static double percentile_us(uint64_t count, double share)
{
	uint64_t below = 0, wanted = (uint64_t)((double)count * share);

	for (unsigned int step = 0; step < STEPS; step++) {
		below += load.histogram[step];
		if (below > wanted)
			return step_us(step);
	}
	return 0;
}

static void start_connect(struct connection *c, unsigned int number)
{
	struct epoll_event event = { .events = EPOLLOUT, .data.ptr = c };
	struct linger broken_off = { .l_onoff = 1 };
	int one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		die("socket");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (load.burst)
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &broken_off, sizeof(broken_off));
	if (load.froms) {
		const struct sockaddr_in *from = &load.from[number % load.froms];

		setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
		if (bind(c->fd, (const struct sockaddr *)from, sizeof(*from)))
			die("bind");
	}
	if (connect(c->fd, (struct sockaddr *)&load.to, sizeof(load.to)) && errno != EINPROGRESS)
		die("connect");
	if (epoll_ctl(load.epoll, EPOLL_CTL_ADD, c->fd, &event))
		die("epoll_ctl");
}

static void end_connect(struct connection *c)
{
	socklen_t size = sizeof(errno);
	int error = 0;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) || error) {
		errno = error ? error : errno;
		die("connect");
	}
	epoll_ctl(load.epoll, EPOLL_CTL_DEL, c->fd, NULL);
}

static int wait_events(struct epoll_event *events)
{
	int count;

	do
		count = epoll_wait(load.epoll, events, EVENTS, ANSWER_MS);
	while (count < 0 && errno == EINTR);
	if (count <= 0) {
		errno = count ? errno : ETIMEDOUT;
		die("no answer");
	}
	return count;
}

static void connect_all(void)
{
	struct epoll_event events[EVENTS], event = { .events = EPOLLIN };
	unsigned int begun = 0, done = 0;
	uint64_t start = now_ns();

	while (done < load.connections) {
		for (; begun < load.connections && begun - done < load.pending; begun++)
			start_connect(&load.all[begun], begun);
		for (int count = wait_events(events); count > 0; count--, done++)
			end_connect(events[count - 1].data.ptr);
	}
	for (unsigned int i = 0; i < load.busy; i++) {
		event.data.ptr = &load.all[i * load.stride];
		if (epoll_ctl(load.epoll, EPOLL_CTL_ADD, load.all[i * load.stride].fd, &event))
			die("epoll_ctl");
	}
	printf("{\"connections\": %u, \"seconds\": %.6f}\n", done, (double)(now_ns() - start) / 1e9);
	fflush(stdout);
}

static void ask(struct connection *c)
{
	c->wanted = load.response;
	c->asked_ns = now_ns();
	if (write(c->fd, load.request, load.request_size) != (ssize_t)load.request_size)
		die("write");
}

/* Returns true when the answer is complete; its time is then in the histogram. */
static int take(struct connection *c)
{
	char bytes[65536];
	ssize_t got = read(c->fd, bytes, sizeof(bytes));

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got <= 0 || got > c->wanted) {
		errno = got ? (got < 0 ? errno : EPROTO) : ECONNRESET;
		die("read");
	}
	c->wanted -= (uint32_t)got;
	if (c->wanted)
		return 0;
	load.histogram[step_of(now_ns() - c->asked_ns)]++;
	return 1;
}

static void report(uint64_t count, uint64_t start)
{
	double seconds = (double)(now_ns() - start) / 1e9;

	printf("{\"requests\": %" PRIu64 ", \"seconds\": %.6f, \"rate\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
	       "\"p999_us\": %.2f}\n",
	       count, seconds, (double)count / seconds, percentile_us(count, 0.50), percentile_us(count, 0.99),
	       percentile_us(count, 0.999));
	fflush(stdout);
}

/* At most `most` requests, and none after `until`. Each busy connection has one request under way. */
static void run(uint64_t most, uint64_t until)
{
	struct epoll_event events[EVENTS];
	uint64_t asked = 0, answered = 0, start = now_ns();

	memset(load.histogram, 0, sizeof(load.histogram));
	for (; asked < load.busy && asked < most; asked++)
		ask(&load.all[asked * load.stride]);
	while (answered < asked) {
		int count = wait_events(events);
		int more = now_ns() < until;

		for (int i = 0; i < count; i++) {
			if (!take(events[i].data.ptr))
				continue;
			answered++;
			if (more && asked < most) {
				asked++;
				ask(events[i].data.ptr);
			}
		}
	}
	report(answered, start);
}

static void gap(uint64_t most, uint64_t pause_ms)
{
	struct timespec pause = { (time_t)(pause_ms / 1000), (long)(pause_ms % 1000) * 1000000 };
	struct epoll_event events[EVENTS];
	uint64_t start = now_ns();

	memset(load.histogram, 0, sizeof(load.histogram));
	for (uint64_t i = 0; i < most; i++) {
		nanosleep(&pause, NULL);
		ask(&load.all[0]);
		do
			wait_events(events);
		while (!take(&load.all[0]));
	}
	report(most, start);
}

static void address(struct sockaddr_in *name, const char *text)
{
	name->sin_family = AF_INET;
	if (inet_pton(AF_INET, text, &name->sin_addr) != 1) {
		errno = EINVAL;
		die(text);
	}
}

static void options(int argc, char **argv)
{
	static const struct option known[] = {
		{ "to", 1, NULL, 't' },          { "port", 1, NULL, 'p' },  { "from", 1, NULL, 'f' },
		{ "connections", 1, NULL, 'c' }, { "busy", 1, NULL, 'b' },  { "request", 1, NULL, 'q' },
		{ "response", 1, NULL, 'r' },    { "burst", 0, NULL, 'B' }, { NULL, 0, NULL, 0 },
	};
	int option;

	load.request = "";
	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (option == 't')
			address(&load.to, optarg);
		else if (option == 'p')
			load.to.sin_port = htons((uint16_t)atoi(optarg));
		else if (option == 'c')
			load.connections = (unsigned int)atoi(optarg);
		else if (option == 'b')
			load.busy = (unsigned int)atoi(optarg);
		else if (option == 'q')
			load.request = optarg;
		else if (option == 'r')
			load.response = (uint32_t)atoi(optarg);
		else if (option == 'B')
			load.burst = 1;
		else if (option == 'f')
			for (char *each = strtok(optarg, ","); each && load.froms < FROM_MAX; each = strtok(NULL, ","))
				address(&load.from[load.froms++], each);
		else
			exit(64);
	}
	load.request_size = strlen(load.request);
	if (!load.busy || load.busy > load.connections)
		load.busy = load.connections;
	if (!load.connections || !load.to.sin_port || !load.request_size || !load.response) {
		fprintf(stderr, "usage: load --to A --port P --connections N --request TEXT --response BYTES\n");
		exit(64);
	}
	load.stride = load.connections / load.busy;
	load.pending = load.burst ? load.connections : PENDING_MAX;
}

int main(int argc, char **argv)
{
	char line[128];
	uint64_t a, b;

	options(argc, argv);
	load.all = calloc(load.connections, sizeof(*load.all));
	load.epoll = epoll_create1(0);
	if (!load.all || load.epoll < 0)
		die("start");
	if (load.burst) {
		puts("{\"ready\": 1}");
		fflush(stdout);
		if (!fgets(line, sizeof(line), stdin))
			return 0;
	}
	connect_all();
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "count %" SCNu64, &a) == 1)
			run(a, UINT64_MAX);
		else if (sscanf(line, "run %" SCNu64, &a) == 1)
			run(UINT64_MAX, now_ns() + a * 1000000u);
		else if (sscanf(line, "gap %" SCNu64 " %" SCNu64, &a, &b) == 2)
			gap(a, b);
		else
			break;
	}
	return 0;
}
