/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A server that costs next to nothing: it takes requests of redis off a tap and writes the answers to it, made on the spot
 * and without any stack. No timers, no buffers, no options but MSS and window scale, nothing is ever sent twice: a tap loses
 * nothing as long as there are fewer connections than its queue has room. What its client reaches is what that client and
 * the kernel's own path to a tap allow, whoever answers.
 *
 *   tap_answer CPU_SERVER CPU_CLIENT sleep|spin PROGRAM [ARGUMENT...]   runs the client; its server is at 192.0.2.2
 *
 * With "sleep" the server does when there is nothing to read, with "spin" it never does. Every request is answered as a GET
 * of "xxx". Runs in a network namespace of its own.
 */
#include <linux/virtio_net.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

#include "tap.h"

#define CONGESTION "/proc/sys/net/ipv4/tcp_congestion_control"
#define ANSWER "$3\r\nxxx\r\n"
#define ANSWERS_MAX 100u /* to one frame: a segment holds no more of the shortest requests of a benchmark */
#define TURN_MAX 64u     /* frames answered before any answer leaves, as a stack would */
#define FRAME_MAX 65550u
#define MSS 1460
#define WINDOW 32000
#define WINDOW_SCALE 7
#define INITIAL_SEQUENCE 1000u

struct headers {
	struct virtio_net_hdr offload;
	uint8_t to[6], from[6];
	uint16_t type;
	struct iphdr ip;
	struct tcphdr tcp;
} __attribute__((packed));

struct request {
	struct headers headers;
	char rest[FRAME_MAX];
} __attribute__((packed));

struct answer {
	struct headers headers;
	char rest[ANSWERS_MAX * (sizeof(ANSWER) - 1)];
} __attribute__((packed));

/* The next byte each side sends. */
struct connection {
	uint32_t ours, theirs;
};

static uint32_t sum_of(const void *data, size_t bytes)
{
	const uint8_t *at = data;
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < bytes; i += 2)
		sum += (uint32_t)(at[i] << 8 | at[i + 1]);
	return sum;
}

static uint16_t folded(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* Writes an answer for every request that begins in the data. Returns the bytes. */
static size_t answer_requests(const char *data, size_t bytes, char *out)
{
	const char *at = data, *end = data + bytes;
	size_t written = 0;

	for (uint32_t n = 0; n < ANSWERS_MAX && (at = memchr(at, '*', (size_t)(end - at))); n++, at++) {
		memcpy(out + written, ANSWER, sizeof(ANSWER) - 1);
		written += sizeof(ANSWER) - 1;
	}
	return written;
}

/* Turns the headers of a segment round; the kernel completes the checksum, as it does for its own. */
static void address_answer(struct headers *to, const struct headers *from, size_t options, size_t bytes)
{
	uint16_t length = (uint16_t)(sizeof(to->tcp) + options + bytes);

	memset(to, 0, sizeof(*to));
	to->offload.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	to->offload.csum_start = offsetof(struct headers, tcp) - sizeof(to->offload);
	to->offload.csum_offset = offsetof(struct tcphdr, check);
	memcpy(to->to, from->from, sizeof(to->to));
	memcpy(to->from, from->to, sizeof(to->from));
	to->type = from->type;
	to->ip.version = 4;
	to->ip.ihl = sizeof(to->ip) / 4;
	to->ip.tot_len = htons((uint16_t)(sizeof(to->ip) + length));
	to->ip.ttl = 64;
	to->ip.protocol = IPPROTO_TCP;
	to->ip.saddr = from->ip.daddr;
	to->ip.daddr = from->ip.saddr;
	to->ip.check = htons((uint16_t)~folded(sum_of(&to->ip, sizeof(to->ip))));
	to->tcp.source = from->tcp.dest;
	to->tcp.dest = from->tcp.source;
	to->tcp.doff = (uint16_t)((sizeof(to->tcp) + options) / 4) & 0xf;
	to->tcp.ack = 1;
	to->tcp.window = htons(WINDOW);
	to->tcp.check = htons(folded(sum_of(&to->ip.saddr, 8) + IPPROTO_TCP + length));
}

/* Makes the answer to a segment. Returns the length of its frame with the offload header; 0: there is none. */
static size_t answer_segment(const struct request *in, size_t got, struct answer *out)
{
	static const char options[] = { 2, 4, MSS >> 8, MSS & 0xff, 1, 3, 3, WINDOW_SCALE };
	static struct connection connections[65536]; /* by the client's port */
	const struct headers *h = &in->headers;
	struct connection *connection = &connections[ntohs(h->tcp.source)];
	uint32_t sequence = ntohl(h->tcp.seq);
	size_t bytes, before, written = 0;

	if (got < sizeof(*h) || h->type != htons(0x0800) || h->ip.protocol != IPPROTO_TCP || h->tcp.rst)
		return 0;
	before = (size_t)h->tcp.doff * 4 - sizeof(h->tcp);
	bytes = ntohs(h->ip.tot_len) - sizeof(h->ip) - sizeof(h->tcp) - before;
	if (sizeof(*h) + before + bytes > got)
		return 0;
	if (h->tcp.syn) {
		*connection = (struct connection){ INITIAL_SEQUENCE, sequence + 1 };
		memcpy(out->rest, options, sizeof(options));
		address_answer(&out->headers, h, sizeof(options), 0);
	} else {
		if (sequence != connection->theirs || (!bytes && !h->tcp.fin))
			return 0;
		written = answer_requests(in->rest + before, bytes, out->rest);
		connection->theirs += (uint32_t)bytes + h->tcp.fin;
		address_answer(&out->headers, h, 0, written);
	}
	out->headers.tcp.syn = h->tcp.syn;
	out->headers.tcp.fin = h->tcp.fin;
	out->headers.tcp.psh = written > 0;
	out->headers.tcp.seq = htonl(connection->ours);
	out->headers.tcp.ack_seq = htonl(connection->theirs);
	connection->ours += (uint32_t)written + h->tcp.syn + h->tcp.fin;
	return sizeof(out->headers) + (h->tcp.syn ? sizeof(options) : written);
}

static void serve(int tap, bool sleeps)
{
	static struct request in;
	static struct answer out[TURN_MAX];
	size_t lengths[TURN_MAX];
	struct pollfd readable = { .fd = tap, .events = POLLIN };

	for (;;) {
		uint32_t count = 0;
		ssize_t got = 1;

		while (count < TURN_MAX && (got = read(tap, &in, sizeof(in))) > 0)
			if ((lengths[count] = answer_segment(&in, (size_t)got, &out[count])))
				count++;
		for (uint32_t i = 0; i < count; i++)
			if (write(tap, &out[i], lengths[i]) != (ssize_t)lengths[i])
				die("write");
		if (!count && sleeps && poll(&readable, 1, -1) < 0)
			die("poll");
	}
}

/* The algorithm of the benchmark's other namespaces, whatever this machine's is. */
static void choose_reno(void)
{
	int fd = open(CONGESTION, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "reno", 4) != 4)
		die(CONGESTION);
	close(fd);
}

int main(int argc, char **argv)
{
	pid_t server, client;
	int tap, status;

	if (argc < 5 || (strcmp(argv[3], "sleep") && strcmp(argv[3], "spin"))) {
		fprintf(stderr, "usage: tap_answer CPU_SERVER CPU_CLIENT sleep|spin PROGRAM [ARGUMENT...]\n");
		return 64;
	}
	tap = make_tap(IFF_VNET_HDR);
	choose_reno();
	if (ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4))
		die("offload");
	server = child_on(argv[1]);
	if (!server)
		serve(tap, argv[3][1] == 'l');
	close(tap);
	client = child_on(argv[2]);
	if (!client) {
		execvp(argv[4], argv + 4);
		die(argv[4]);
	}
	if (waitpid(client, &status, 0) != client)
		die("waitpid");
	end_child(server);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
