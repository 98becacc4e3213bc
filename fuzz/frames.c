/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Whatever comes over the wire, the worker goes on and keeps nothing. The input is a list of steps: a frame made of its bytes
 * alone; a TCP segment that fits, more or less, a flow that is under way; a datagram, an ICMP error about what was sent last, ARP, neighbour
 * discovery; any of these in fragments; time; and what the application does meanwhile, which is attached and has listeners,
 * connections and datagram sockets. Checksums are made right unless a step says otherwise.
 */
#include <string.h>
#include <sys/socket.h>

#include "input.h"
#include "packet.h"
#include "process_kit.h"
#include "worker_kit.h"

#define STEPS 300
#define PORTS 8u /* of each peer: 1000, 1001.. */
#define STREAMS 8u
#define MS 1000000ull

/* What is known of a flow by what the worker has sent. */
struct flow {
	bool known;
	uint32_t next; /* what the peer sends next: its last acknowledgement by the worker */
	uint32_t ack;  /* what the peer has of the worker */
};

enum { LOCAL_LISTENER, LOCAL_DATAGRAM, LOCAL_OUT, LOCAL_CLOSED, LOCALS };

static struct process app;
static uint32_t owned[KERNEL_SOCKETS]; /* the numbers of its listeners and datagram sockets */
static uint32_t stream[STREAMS];
static uint16_t out_port[2]; /* the worker's port of the last connection out, v4 and v6 */
static struct flow flows[2][PACKET_PEERS][PORTS][LOCALS];
static uint8_t frame[FRAME_MAX], whole[FRAME_MAX];
static uint8_t pieces; /* how incoming frames lie in mbufs */
static uint8_t fragments, twist;

static uint16_t local_port(bool v6, uint32_t local)
{
	switch (local) {
	case LOCAL_LISTENER:
		return kernel_socket[v6 ? KERNEL_TCP6 : KERNEL_TCP4].port;
	case LOCAL_DATAGRAM:
		return kernel_socket[v6 ? KERNEL_UDP6 : KERNEL_UDP4].port;
	case LOCAL_OUT:
		return out_port[v6];
	default:
		return 9;
	}
}

static uint32_t local_of(bool v6, uint16_t port)
{
	if (port == local_port(v6, LOCAL_LISTENER))
		return LOCAL_LISTENER;
	return port == out_port[v6] ? LOCAL_OUT : LOCAL_CLOSED;
}

/* The worker has sent a segment: the peer's state follows. */
static void learn(const uint8_t *f, uint32_t bytes)
{
	bool v6 = bytes >= 74 && f[12] == 0x86 && f[20] == 6;
	const uint8_t *tcp = f + PACKET_L4(v6);
	uint32_t peer = f[v6 ? 53 : 33] - 16u, port, data;
	struct flow *flow;

	if (!v6 && (bytes < 54 || f[12] != 8 || f[13] != 0 || f[23] != 6))
		return;
	port = wire_get16(tcp + 2) - 1000u;
	if (peer >= PACKET_PEERS || port >= PORTS)
		return;
	/* A SYN with no ACK is a connection out. */
	if ((tcp[13] & 0x12) == 0x02)
		out_port[v6] = wire_get16(tcp);
	flow = &flows[v6][peer][port][local_of(v6, wire_get16(tcp))];
	data = bytes - PACKET_L4(v6) - (tcp[12] >> 4) * 4u;
	flow->known = !(tcp[13] & 4);
	flow->ack = wire_get32(tcp + 4) + data + ((tcp[13] & 3) ? 1 : 0);
	if (tcp[13] & 0x10)
		flow->next = wire_get32(tcp + 8);
}

/* ------------------------------------------------------------------ frames */

static void send_fragment(bool v6, uint32_t head, uint32_t from, uint32_t bytes, uint32_t offset, bool more, uint8_t id)
{
	uint32_t len = head + bytes;

	memcpy(frame, whole, head);
	if (v6) {
		uint8_t *x = frame + head;

		wire_put16(frame + 18, bytes + 8);
		frame[20] = 44;
		memset(x, 0, 8);
		x[0] = whole[20];
		wire_put16(x + 2, (offset & 0xfff8) | more);
		x[7] = id;
		memcpy(x + 8, whole + head + from, bytes);
		len += 8;
	} else {
		wire_put16(frame + 16, head - 14 + bytes);
		wire_put16(frame + 18, id);
		wire_put16(frame + 20, (offset >> 3 & 0x1fff) | (more ? 0x2000u : 0));
		memcpy(frame + head, whole + head + from, bytes);
		packet_fix(frame, len);
	}
	worker_frame(frame, len, pieces);
}

/* The frame in pieces: in order, reversed or mixed; with holes, overlaps and lies, as the input has it. */
static void send_in_fragments(struct input *in, bool v6, uint32_t len)
{
	uint32_t head = v6 ? 54 : 14 + (frame[14] & 15) * 4u, all, step = 8u * (1 + (fragments & 31)), count;
	uint8_t id = twist;

	if (len <= head || len > FRAME_MAX - 16)
		return;
	memcpy(whole, frame, len);
	all = len - head;
	count = (all + step - 1) / step;
	if (count > 40) {
		step = (all / 40 + 8) & ~7u;
		count = (all + step - 1) / step;
	}
	for (uint32_t k = 0; k < count; k++) {
		uint32_t i = fragments & 32 ? count - 1 - k : fragments & 64 ? (k * 7 + 3) % count : k;
		uint32_t from = i * step, bytes = from + step < all ? step : all - from, offset = from;
		bool more = from + bytes < all;
		uint8_t lie = take8(in);

		if (lie == 1)
			continue;
		if (lie == 2 && offset >= 8)
			offset -= 8;
		if (lie == 3 && bytes > 8)
			bytes -= 8;
		if (lie == 4)
			more = !more;
		if (lie == 5)
			offset += 65000;
		if (lie == 6)
			bytes &= ~7u;
		if (lie == 7)
			id++;
		send_fragment(v6, head, from, bytes, offset, more, id);
	}
}

/* Says what becomes of the frame that the step makes: fragments, an edit, wrong checksums. Then it comes in. */
static void come_in(struct input *in, bool v6, uint32_t len)
{
	uint8_t how = take8(in);

	for (uint32_t edits = how >> 5 & 3; edits--;) {
		uint32_t at = take16(in) % len;

		frame[at < 128 || how & 1 ? at : at % 128] = take8(in);
	}
	if (!(how & 2))
		packet_fix(frame, len);
	pieces = how & 4 ? (uint8_t)(1 + take8(in) % 200) : 0;
	if (how & 8) {
		fragments = take8(in);
		twist = take8(in);
		send_in_fragments(in, v6, len);
	} else {
		worker_frame(frame, len, pieces);
	}
}

static void raw_frame(struct input *in)
{
	static const uint16_t types[] = { 0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8, 0x8864, 0x0800, 0x86dd };
	uint8_t kind = take8(in);
	uint32_t bytes = take8(in);

	memset(frame, 0, 54);
	(void)packet_head(frame, kind & 4, kind, take8(in), bytes > 40 ? bytes - 40 : 0);
	wire_put16(frame + 12, types[kind & 7]);
	take_bytes(in, frame + (kind & 8 ? 14 : PACKET_L4(kind & 4)), bytes);
	come_in(in, kind & 4, 54 + bytes);
}

static uint32_t put_options(struct input *in, uint8_t *at, uint8_t how)
{
	static const uint8_t usual[] = { 2, 4, 5, 180, 4, 2, 3, 3, 7, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0 };
	uint32_t bytes = 4u * (how % 11);

	if (how & 128) {
		memcpy(at, usual, sizeof(usual));
		return sizeof(usual);
	}
	take_bytes(in, at, bytes);
	return bytes;
}

static void segment(struct input *in, bool v6, uint8_t flags, bool plain)
{
	uint8_t who = take8(in), how = plain ? 8 : take8(in), *tcp = frame + PACKET_L4(v6);
	uint32_t peer = who & 3, port = who >> 2 & 7,
		 local = who & 32   ? LOCAL_OUT
	                 : who & 64 ? LOCAL_CLOSED
	                            : LOCAL_LISTENER;
	struct flow *flow = &flows[v6][peer][port][local];
	uint32_t seq = flow->known ? flow->next : 5000, ack = flow->ack, bytes = 0, window = 65535, options = 0;

	if (how & 1)
		seq += (uint32_t)(int16_t)take16(in);
	if (how & 2)
		ack += (uint32_t)(int16_t)take16(in);
	if (how & 4)
		window = take16(in);
	if (how & 8)
		bytes = take8(in);
	if (how & 16)
		bytes = take16(in) % 3000;
	if (how & 32)
		seq += take32(in);
	memset(tcp, 0, 20);
	if (how & 64 || flags & 2)
		options = put_options(in, tcp + 20, flags & 2 && plain ? 128 : take8(in));
	wire_put16(tcp, 1000 + port);
	wire_put16(tcp + 2, local_port(v6, local));
	wire_put32(tcp + 4, seq);
	wire_put32(tcp + 8, ack);
	tcp[12] = (uint8_t)((5 + options / 4) << 4);
	tcp[13] = flags;
	wire_put16(tcp + 14, window);
	if (flags & 2)
		bytes = plain ? 0 : bytes;
	memset(tcp + 20 + options, 'x', bytes);
	come_in(in, v6, packet_head(frame, v6, peer, 6, 20 + options + bytes));
}

static void datagram(struct input *in, bool v6)
{
	uint8_t who = take8(in), *udp = frame + PACKET_L4(v6);
	uint32_t bytes = who & 64 ? take16(in) % 60000 : take8(in);

	wire_put16(udp, 1000 + (who >> 2 & 7));
	wire_put16(udp + 2, local_port(v6, who & 32 ? LOCAL_CLOSED : LOCAL_DATAGRAM));
	wire_put16(udp + 4, who & 128 ? take16(in) : 8 + bytes);
	wire_put16(udp + 6, 0);
	memset(udp + 8, 'u', bytes);
	come_in(in, v6, packet_head(frame, v6, who & 3, 17, 8 + bytes));
}

/* An ICMP message; most are errors about the packet that the worker sent last. */
static void icmp(struct input *in, bool v6)
{
	static const uint8_t types4[] = { 3, 3, 11, 12, 4, 5, 8, 0 }, types6[] = { 1, 2, 3, 4, 128, 129, 2, 2 };
	uint8_t kind = take8(in), *at = frame + PACKET_L4(v6);
	uint32_t bytes = 8, quoted = worker.sent_bytes > 14 ? worker.sent_bytes - 14 : 0;

	memset(at, 0, 8);
	at[0] = v6 ? types6[kind & 7] : types4[kind & 7];
	at[1] = take8(in) & 15;
	wire_put32(at + 4, take_odd(in));
	quoted = quoted > 200 ? 200 : quoted;
	memcpy(at + 8, worker.sent + 14, quoted);
	bytes += kind & 8 && quoted ? take8(in) % quoted : quoted;
	if (kind & 16 && quoted)
		at[8 + take8(in) % quoted] = take8(in);
	come_in(in, v6, packet_head(frame, v6, kind >> 5 & 3, v6 ? 58 : 1, bytes));
}

static void arp(struct input *in)
{
	uint32_t len = packet_arp(frame, take8(in));

	frame[21] = 1 + (take8(in) & 1);
	if (!take8(in))
		frame[41] = take8(in);
	come_in(in, false, len);
}

static void discovery(struct input *in)
{
	static const uint8_t types[] = { 133, 134, 135, 136, 137, 130, 131, 143 };
	uint8_t kind = take8(in), *at = frame + PACKET_L4(true);
	uint32_t bytes = 24u + take8(in) % 64;

	memset(at, 0, 8);
	at[0] = types[kind & 7];
	at[1] = kind & 8 ? take8(in) : 0;
	at[4] = take8(in);
	memcpy(at + 8, worker_addr6, 16);
	if (kind & 16)
		at[23] = take8(in);
	take_bytes(in, at + 24, bytes - 24);
	come_in(in, true, packet_head(frame, true, kind >> 5 & 3, 58, bytes));
}

/* ------------------------------------------------------------------ the application */

static void connect_out(struct input *in, uint32_t k)
{
	struct gz_request request = { .op = GZ_REQUEST_CONNECT, .sock = process_number(&app), .type = SOCK_STREAM };
	uint8_t who = take8(in);
	bool v6 = who & 128;

	request.family = v6 ? AF_INET6 : AF_INET;
	packet_peer(v6, who & 3, request.peer);
	request.peer_port = (uint16_t)(1000 + (who >> 2 & 7));
	if (!v6)
		request.addr[10] = request.addr[11] = 0xff;
	if (!request.sock)
		return;
	stream[k] = request.sock;
	process_post(&app, &request);
}

static void application(struct input *in)
{
	uint8_t what = take8(in), how = take8(in);
	uint32_t k = what >> 4 & 7, n = stream[k];
	struct gz_end *end = n ? &app.arena->sock[n].app : NULL;
	struct gz_request release = { .op = GZ_REQUEST_RELEASE, .sock = n };
	uint8_t peer[16];

	if (!n && (what & 15) > 2)
		what = 0;
	switch (what & 15) {
	case 0:
	case 1:
		stream[k] = n ? n : process_accept(&app, owned[how & 1]);
		break;
	case 2:
		if (!n)
			connect_out(in, k);
		break;
	case 3:
	case 4:
		process_read(&app, n, how & 128 ? 1u << 20 : how);
		break;
	case 5:
	case 6:
		process_write(&app, n, how & 128 ? (how & 127u) * 1000 : how);
		break;
	case 7:
		gz_or(&end->flags, how & 1 ? GZ_APP_SHUT_WR : how & 2 ? GZ_APP_SHUT_RD : GZ_APP_ABORT);
		process_ring(&app, n);
		break;
	case 8:
		if (how & 1)
			gz_or(&end->flags, GZ_APP_ABORT);
		process_post(&app, &release);
		stream[k] = 0;
		break;
	case 9:
		gz_store(&app.arena->sock[n].options.nodelay, how & 1);
		gz_store(&app.arena->sock[n].options.cork, how >> 1 & 1);
		gz_store(&app.arena->sock[n].options.keepalive, how >> 2 & 1);
		gz_store(&app.arena->sock[n].options.keepidle_s, how >> 3 & 7);
		gz_store(&app.arena->sock[n].options.rcvbuf, (how >> 6) * 10000u);
		gz_or(&end->flags, GZ_APP_OPTIONS);
		process_ring(&app, n);
		break;
	case 10:
		gz_store(&end->aux[GZ_AUX_GROW_SIZE], how * 5000u);
		gz_add(&end->aux[GZ_AUX_GROW_SERIAL], 1);
		gz_or(&end->flags, GZ_APP_GROW);
		process_ring(&app, n);
		break;
	case 11:
		gz_or(&end->flags, GZ_APP_WANT_SPACE);
		process_ring(&app, n);
		break;
	default:
		packet_peer(how & 1, how >> 1 & 3, peer);
		process_read(&app, owned[KERNEL_UDP4 + (how & 1)], 1u << 20);
		process_send_to(&app, owned[KERNEL_UDP4 + (how & 1)], peer, (uint16_t)(1000 + (how >> 3 & 7)),
		                how & 128 ? 5000 : how);
	}
}

/* ------------------------------------------------------------------ */

static void step(struct input *in)
{
	static const uint16_t ms[] = { 1,    5,    26,   51,   200,   260,   500,   1000,
		                       1100, 2000, 3000, 5000, 15000, 31000, 61000, 20 };
	uint8_t what = take8(in);
	bool v6 = what & 128;

	switch (what & 15) {
	case 0:
		raw_frame(in);
		break;
	case 1:
		segment(in, v6, take8(in), false);
		break;
	case 2:
		segment(in, v6, 0x02, true);
		break;
	case 3:
		segment(in, v6, 0x10, true);
		break;
	case 4:
		segment(in, v6, 0x18, true);
		break;
	case 5:
		segment(in, v6, what & 16 ? 0x11 : what & 32 ? 0x04 : 0x12, true);
		break;
	case 6:
		datagram(in, v6);
		break;
	case 7:
		icmp(in, v6);
		break;
	case 8:
		arp(in);
		break;
	case 9:
		discovery(in);
		break;
	case 10:
		worker_turn(ms[take8(in) & 15] * MS);
		return;
	default:
		application(in);
	}
	if (!(what & 64))
		worker_turn(MS / 10);
}

static void open_app(void)
{
	process_attach(&app);
	for (int which = 0; which < KERNEL_SOCKETS; which++) {
		owned[which] = process_number(&app);
		process_own(&app, owned[which], which);
	}
	worker_turn(0);
	worker_turn(0);
	for (int which = 0; which < KERNEL_SOCKETS; which++)
		MUST(gz_load(&app.arena->sock[owned[which]].worker.flags) & (GZ_WORKER_LISTENING | GZ_WORKER_CONNECTED));
	memset(stream, 0, sizeof(stream));
	memset(flows, 0, sizeof(flows));
	out_port[0] = out_port[1] = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	open_app();
	for (uint32_t peer = 0; peer < PACKET_PEERS; peer++) {
		worker_frame(frame, packet_arp(frame, peer), 0);
		worker_frame(frame, packet_solicitation(frame, peer), 0);
	}
	for (int i = 0; i < STEPS && in.left; i++)
		step(&in);
	process_leave(&app);
	worker_settle();
	return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	worker_begin((*argv)[0]);
	worker.on_sent = learn;
	process_open_kernel_sockets();
	return 0;
}
