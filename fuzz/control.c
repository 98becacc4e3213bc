/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Whatever is said on control sockets, with whatever descriptors, the worker goes on, and when everybody has hung up it keeps nothing. The
 * input is a list of steps of a few processes: they come, say messages that are nearly right or not at all, bring and get
 * descriptors, post requests for what they have shown, and leave.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "input.h"
#include "process_kit.h"
#include "worker_kit.h"

#define STEPS 200
#define PROCESSES 6u
#define KINDS 19u /* of messages, and one more */

/* What may come along: open for good. */
enum { EVENTFD, DEV_NULL, PAIR_END, STREAM_END, MEMFD, THINGS };

static struct process process[PROCESSES];
static int thing[THINGS];
static int end = -1; /* the last one that came with an answer */

static int descriptor(struct input *in)
{
	uint8_t which = take8(in) % 16;

	if (which < KERNEL_SOCKETS)
		return kernel_socket[which].fd;
	if (which < KERNEL_SOCKETS + THINGS)
		return thing[which - KERNEL_SOCKETS];
	if (which == 15 && end >= 0)
		return end;
	return process[which % PROCESSES].fd;
}

static void say(struct process *p, struct input *in, const void *bytes, size_t len)
{
	uint32_t count = take8(in) % 20, sent = 0;
	int fds[16];

	/* Mostly one, or none. */
	count = count > 15 ? 0 : count > 3 ? 1 : count == 3 ? 16 : count;
	for (uint32_t i = 0; i < count; i++) {
		fds[sent] = descriptor(in);
		sent += fds[sent] >= 0;
	}
	process_say(p->fd, bytes, len, fds, sent);
}

static void say_message(struct process *p, struct input *in)
{
	struct gz_message m = process_message(take8(in) % KINDS);
	uint8_t how = take8(in);

	if (how & 1)
		m.number = take_odd(in);
	if (how & 2)
		take_bytes(in, m.addr, sizeof(m.addr));
	if (how & 4)
		m.drop = take64(in);
	if (how & 8)
		take_bytes(in, m.text, take8(in) % sizeof(m.text));
	if (how & 16)
		((uint8_t *)&m)[take8(in) % sizeof(m)] = take8(in);
	if (how & 32) {
		m.addr[10] = m.addr[11] = 0xff;
		m.port = kernel_socket[KERNEL_TCP4].port;
	}
	say(p, in, &m, how & 64 ? take8(in) % sizeof(m) : sizeof(m));
}

static void say_anything(struct process *p, struct input *in)
{
	uint8_t bytes[255];
	uint32_t len = take8(in);

	take_bytes(in, bytes, len);
	say(p, in, bytes, len);
}

/* A forked process, or a socket on its way, comes to life at the end that was given for it. */
static void take_life(struct process *p)
{
	if (p->fd >= 0 || end < 0)
		return;
	*p = (struct process){ .fd = end };
	end = -1;
}

static void hear(struct process *p)
{
	struct gz_message answer;
	int got;

	if (!process_hear(p, &answer, &got) || got < 0)
		return;
	if (end >= 0)
		close(end);
	end = got;
}

static void post(struct process *p, struct input *in)
{
	struct gz_request request = { 0 };
	uint8_t how = take8(in);

	if (!p->channel)
		return;
	request = process_request_for(how & 16 ? process_number(p) : take_odd(in), how & 3);
	if (how & 4)
		request.op = take8(in) % 10;
	if (how & 8)
		((uint8_t *)&request)[take8(in) % sizeof(request)] = take8(in);
	if (how & 32)
		request.peer[12] = 10, request.peer[15] = 2, request.peer[10] = request.peer[11] = 0xff,
		request.peer_port = kernel_socket[KERNEL_TCP4].port;
	process_post(p, &request);
}

/* As the library does it. */
static void own(struct process *p, struct input *in)
{
	uint32_t n;

	if (!p->channel || p->fd < 0)
		return;
	n = process_number(p);
	if (n)
		process_own(p, n, take8(in) % KERNEL_SOCKETS);
}

static void step(struct input *in)
{
	static const uint16_t ms[] = { 0, 1, 10, 150, 600, 2100, 5000, 31000 };
	uint8_t what = take8(in);
	struct process *p = &process[(what >> 4) % PROCESSES];

	switch (what & 15) {
	case 0:
	case 1:
		worker_turn(ms[take8(in) & 7] * 1000000ull);
		return;
	case 2:
		take_life(p);
		return;
	case 3:
		if (p->fd < 0)
			process_attach(p);
		return;
	default:
		break;
	}
	if (p->fd < 0)
		p->fd = process_dial();
	switch (what & 15) {
	case 4:
	case 5:
	case 6:
	case 7:
	case 8:
		say_message(p, in);
		break;
	case 9:
		say_anything(p, in);
		break;
	case 10:
	case 11:
		hear(p);
		break;
	case 12:
		post(p, in);
		break;
	case 13:
		own(p, in);
		break;
	default:
		if (what & 1)
			process_leave(p);
	}
	if (what & 128)
		worker_turn(0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	for (uint32_t i = 0; i < PROCESSES; i++)
		process[i].fd = -1;
	for (int i = 0; i < STEPS && in.left; i++)
		step(&in);
	for (uint32_t i = 0; i < PROCESSES; i++)
		process_leave(&process[i]);
	if (end >= 0)
		close(end);
	end = -1;
	worker_settle();
	return 0;
}

/* Somebody else makes it, or it would seem to be of the worker's making, which this process is. */
static void open_pair(int pair[2])
{
	int way[2], status;

	MUST(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, way));
	if (!fork()) {
		int made[2];

		if (!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, made) && process_say(way[1], "", 1, made, 2))
			_exit(0);
		_exit(1);
	}
	MUST(wait(&status) > 0 && !status);
	MUST(process_take(way[0], pair, 2) == 2);
	close(way[0]);
	close(way[1]);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static int pair[2], stream[2];

	worker_begin((*argv)[0]);
	process_open_kernel_sockets();
	open_pair(pair);
	MUST(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream));
	thing[EVENTFD] = eventfd(0, EFD_CLOEXEC);
	thing[DEV_NULL] = open("/dev/null", O_RDWR | O_CLOEXEC);
	thing[PAIR_END] = pair[0];
	thing[STREAM_END] = stream[0];
	thing[MEMFD] = memfd_create("fuzz", MFD_CLOEXEC);
	return 0;
}
