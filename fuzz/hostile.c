/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Whatever an application writes to the memory it shares with the worker, the worker goes on and, once it has left, keeps nothing. Two
 * programs are attached. Both have listeners and datagram sockets, and connections to the stack's own address, so that both ends of each are here;
 * the input is a list of steps of theirs: sound ones, and words written over ends, rings, bells, queues and FIFOs.
 */
#include <string.h>
#include <sys/socket.h>

#include "input.h"
#include "process_kit.h"
#include "worker_kit.h"

#define STEPS 300
#define SOCKS 12u

static struct member {
	struct process process;
	uint32_t sock[SOCKS]; /* numbers it has used */
	uint32_t count;
} program[2];

static uint32_t number(const struct member *self, uint8_t which)
{
	return which < 224 && self->count ? self->sock[which % self->count] : which;
}

static void note(struct member *self, uint32_t n)
{
	if (n && self->count < SOCKS)
		self->sock[self->count++] = n;
}

static void store(void *at, uint32_t value)
{
	gz_store((_Atomic uint32_t *)at, value);
}

/* ------------------------------------------------------------------ what a sound program does */

static struct gz_request to_self(uint32_t op, uint32_t n, int which)
{
	struct gz_request request = process_request_for(n, which);

	request.op = op;
	if (op == GZ_REQUEST_CONNECT)
		request.port = 0;
	request.peer[10] = request.peer[11] = 0xff;
	request.peer[12] = 10;
	request.peer[15] = 2;
	if (which & 1)
		memcpy(request.peer, worker_addr6, sizeof(request.peer));
	request.peer_port = kernel_socket[which].port;
	return request;
}

static void connect_to_self(struct member *self, int which)
{
	struct gz_request request = to_self(GZ_REQUEST_CONNECT, process_number(&self->process), which);

	note(self, request.sock);
	if (request.sock)
		process_post(&self->process, &request);
}

/* As process_accept(), of a queue that may be anything by now. */
static void accept_one(struct member *self, uint32_t listener)
{
	struct process *p = &self->process;
	const struct gz_end *worker_end = &p->arena->sock[listener % GZ_SOCKS_MAX].worker;
	uint32_t block = gz_load(&worker_end->aux[GZ_AUX_ACCEPT_BLOCK]);
	struct gz_accept_queue *queue = (struct gz_accept_queue *)((uint8_t *)p->arena + GZ_BLOCK_OFFSET(block));
	struct gz_request claim = { .op = GZ_REQUEST_CLAIM };
	uint32_t tail;

	if (!block || GZ_BLOCK_OFFSET(block) + 65536 > p->arena_size)
		return;
	tail = gz_load(&queue->tail);
	claim.sock = gz_load(&queue->slot[tail % 1000]);
	store(&queue->tail, tail + 1);
	note(self, claim.sock % GZ_SOCKS_MAX);
	process_post(p, &claim);
}

/* Bytes out, or given back, whether there is room or not. */
static void move(struct member *self, uint32_t n, bool out, uint32_t bytes)
{
	struct gz_end *end = &self->process.arena->sock[n % GZ_SOCKS_MAX].app;

	if (out)
		gz_add(&end->out_head, bytes);
	else
		gz_add(&end->in_tail, bytes);
	process_ring(&self->process, n);
}

/* ------------------------------------------------------------------ what a hostile one does as well */

/* A word of socket n: most are of the application's end, the rest of it is as near. */
static void write_sock(struct member *self, struct input *in)
{
	uint32_t n = number(self, take8(in));
	uint8_t where = take8(in);
	struct gz_sock *s = &self->process.arena->sock[n % GZ_SOCKS_MAX];

	if (where < 160)
		store((uint32_t *)&s->app + where % (sizeof(s->app) / 4), take_odd(in));
	else
		store((uint32_t *)s + where % (sizeof(*s) / 4), take_odd(in));
	process_ring(&self->process, n);
}

static void write_flags(struct member *self, struct input *in)
{
	uint32_t n = number(self, take8(in));

	store(&self->process.arena->sock[n % GZ_SOCKS_MAX].app.flags, (uint32_t)take8(in) << 8 | take8(in));
	process_ring(&self->process, n);
}

static void write_channel(struct member *self, struct input *in)
{
	struct gz_channel *channel = self->process.channel;
	uint32_t which = take8(in), value = take_odd(in);

	switch (which % 8) {
	case 0:
		store(&channel->requests.head, value);
		break;
	case 1:
		store(&channel->requests.tail, value);
		break;
	case 2:
		store(&channel->stock.head, value);
		break;
	case 3:
		store(&channel->stock.tail, value);
		break;
	case 4:
		store(&channel->stock.slot[take8(in) % GZ_STOCK], value);
		break;
	case 5:
		gz_or(&channel->to_worker.summary[value % GZ_BELL_SUMMARY], ~0ull);
		gz_or(&channel->to_worker.words[take16(in) % GZ_BELL_WORDS], take64(in));
		break;
	case 6:
		store(&channel->to_app[value % GZ_EVENT_QUEUES].asleep, 1);
		gz_store(&channel->interest[number(self, take8(in)) % GZ_SOCKS_MAX], take64(in));
		break;
	default:
		store((uint32_t *)channel + take16(in) % (sizeof(*channel) / 4), value);
	}
	gz_bell_ring(&channel->to_worker, 0);
}

/* Into what lies in a block of socket n: an accept queue, or datagrams on their way. */
static void write_block(struct member *self, struct input *in)
{
	struct process *p = &self->process;
	uint32_t n = number(self, take8(in));
	const struct gz_end *end = &p->arena->sock[n % GZ_SOCKS_MAX].worker;
	uint8_t which = take8(in);
	uint32_t block = which & 1 ? gz_load(&end->aux[GZ_AUX_ACCEPT_BLOCK]) : gz_load(&end->in_block);

	if (block && GZ_BLOCK_OFFSET(block) + 4096 <= p->arena_size)
		store((uint8_t *)p->arena + GZ_BLOCK_OFFSET(block) + (which >> 1) * 4, take_odd(in));
	process_ring(p, n);
}

/* A datagram, to the other's socket or anywhere, with a header that may lie. */
static void write_datagram(struct member *self, struct input *in)
{
	struct process *p = &self->process;
	uint32_t n = number(self, take8(in));
	struct gz_sock *s = &p->arena->sock[n % GZ_SOCKS_MAX];
	uint32_t block = gz_load(&s->worker.in_block), head = gz_load(&s->app.out_head);
	struct gz_datagram header = { .port = kernel_socket[KERNEL_UDP4].port, .len = take16(in) };
	uint8_t how = take8(in);

	header.addr[10] = header.addr[11] = 0xff;
	header.addr[12] = 10;
	header.addr[15] = how & 1 ? 2 : take8(in);
	if (how & 2) {
		memcpy(header.addr, worker_addr6, sizeof(header.addr));
		header.port = kernel_socket[KERNEL_UDP6].port;
	}
	if (how & 4)
		((uint8_t *)&header)[take8(in) % sizeof(header)] = take8(in);
	if (!block || GZ_BLOCK_OFFSET(block) + GZ_BLOCK_SIZE(block) > p->arena_size || GZ_BLOCK_SIZE(block) < 4096)
		return;
	gz_fifo_copy_in((uint8_t *)p->arena + GZ_BLOCK_OFFSET(block), GZ_BLOCK_SIZE(block), gz_load(&s->app.out_base),
	                head, &header, sizeof(header));
	store(&s->app.out_head, head + (how & 8 ? take_odd(in) : GZ_DATAGRAM_SPACE(header.len)));
	process_ring(p, n);
}

static void post_anything(struct member *self, struct input *in)
{
	uint8_t how = take8(in);
	struct gz_request request = to_self(how % 10, number(self, take8(in)), how >> 4 & 3);

	if (how & 64)
		((uint8_t *)&request)[take8(in) % sizeof(request)] = take8(in);
	if (how & 128)
		request.sock = take_odd(in);
	process_post(&self->process, &request);
}

/* ------------------------------------------------------------------ */

static void step(struct input *in)
{
	static const uint16_t ms[] = { 0, 0, 1, 5, 40, 200, 1100, 5000 };
	uint8_t what = take8(in);
	struct member *p = &program[what >> 7];
	struct gz_message fork = process_message(GZ_MESSAGE_FORK);

	switch (what & 15) {
	case 0:
	case 1:
	case 2:
		worker_turn(ms[what >> 4 & 7] * 1000000ull);
		break;
	case 3:
		connect_to_self(p, what >> 4 & 1);
		break;
	case 4:
		accept_one(p, p->sock[what >> 4 & 1]);
		break;
	case 5:
		move(p, number(p, take8(in)), what & 16, take16(in));
		break;
	case 6:
		write_datagram(p, in);
		break;
	case 7:
	case 8:
		write_sock(p, in);
		break;
	case 9:
		write_flags(p, in);
		break;
	case 10:
		write_channel(p, in);
		break;
	case 11:
		write_block(p, in);
		break;
	case 12:
	case 13:
		post_anything(p, in);
		break;
	case 14:
		process_say(p->process.fd, &fork, sizeof(fork), NULL, 0);
		break;
	default:
		note(p, process_number(&p->process));
	}
	if (what & 64)
		worker_turn(0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	memset(program, 0, sizeof(program));
	for (int i = 0; i < 2; i++)
		process_attach(&program[i].process);
	/* The first has the ports; the second talks to them. */
	for (int which = 0; which < KERNEL_SOCKETS; which++) {
		note(&program[0], process_number(&program[0].process));
		process_own(&program[0].process, program[0].sock[which], which);
	}
	worker_turn(0);
	worker_turn(0);
	for (int i = 0; i < STEPS && in.left; i++)
		step(&in);
	for (int i = 0; i < 2; i++)
		process_leave(&program[i].process);
	worker_settle();
	return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	worker_begin((*argv)[0]);
	process_open_kernel_sockets();
	return 0;
}
