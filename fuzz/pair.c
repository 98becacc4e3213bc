/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Whatever a program of this host writes into the memory it shares with another, and says on the sockets between them, the
 * other goes on. Here both sides are this program, so that both can be harmed; the hostile one is the input, which writes
 * behind the library's back.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/control.h>
#include <gazelle/same_host.h>

#include "input.h"
#include "shim_kit.h"

#define STEPS 150
#define CONNECTIONS 4u
#define MEMBER_SOCKETS 16u
#define BLOCK_WORDS 64u

static int listener = -1, end[2 * CONNECTIONS];
static struct sockaddr_in at;
static struct gz_pair *shared;
static int member_socket[MEMBER_SOCKETS];
static uint32_t member_sockets;

/* Where the library has mapped the memory of the pair it uses: something has come by it. */
static void find_memory(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned long from, to;

	shared = NULL;
	while (maps && fgets(line, sizeof(line), maps)) {
		if (!strstr(line, "gazelle-pair") || sscanf(line, "%lx-%lx", &from, &to) != 2 || to - from < GZ_PAIR_HEADER)
			continue;
		if (gz_load(&((struct gz_pair *)from)->side[1].accept_head))
			shared = (struct gz_pair *)from;
	}
	if (maps)
		fclose(maps);
}

/* Ends of socket pairs that the library keeps, but for the worker's, which have a name. */
static void find_member_sockets(void)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *entry;

	member_sockets = 0;
	while (dir && (entry = readdir(dir))) {
		struct sockaddr_storage peer;
		int fd = atoi(entry->d_name), type = 0;
		socklen_t len = sizeof(type), size = sizeof(peer);

		if (fd <= 2 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_SEQPACKET)
			continue;
		if (getpeername(fd, (struct sockaddr *)&peer, &size) || size > sizeof(sa_family_t) ||
		    member_sockets == MEMBER_SOCKETS)
			continue;
		member_socket[member_sockets++] = fd;
	}
	if (dir)
		closedir(dir);
}

static void store(void *to, uint32_t value)
{
	__atomic_store_n((uint32_t *)to, value, __ATOMIC_RELAXED);
}

static void write_memory(struct input *in)
{
	uint8_t what = take8(in);
	struct gz_pair_side *side = &shared->side[what >> 7];
	uint32_t n = 1 + take8(in) % 8, value = take_odd(in);

	switch (what & 7) {
	case 0:
	case 1:
		store((uint32_t *)&shared->sock[n].end[what >> 7] + (what >> 3 & 15), value);
		break;
	case 2:
		store((uint32_t *)&shared->sock[n] + take8(in) % (sizeof(shared->sock[n]) / 4), value);
		break;
	case 3:
		store(what & 8 ? &side->accept_head : &side->accept_tail, value);
		store(&side->accept[take8(in)], what & 16 ? GZ_PAIR_SLOT(value, n) : value);
		break;
	case 4:
		store(what & 8 ? &side->processes : &side->member[n - 1], value);
		break;
	case 5:
		store(&side->owner[take8(in)], value);
		store(&side->holds[n - 1][0], take32(in));
		break;
	case 6:
		store(&side->to[n - 1].summary[0], UINT32_MAX);
		store(&side->to[n - 1].words[take8(in) % GZ_BELL_WORDS], value);
		break;
	default:
		store((uint32_t *)shared + take32(in) % (GZ_PAIR_HEADER / 4), value);
	}
}

static void say(struct input *in)
{
	static const uint32_t kinds[] = { GZ_MESSAGE_EVENT_QUEUE, GZ_MESSAGE_MEMBER, GZ_MESSAGE_DROP, GZ_MESSAGE_PAIRED };
	struct gz_message message = { .magic = GZ_ATTACH_MAGIC, .abi_version = GZ_ABI_VERSION };
	uint8_t what = take8(in);
	int fd;

	if (!member_sockets)
		return;
	fd = member_socket[take8(in) % member_sockets];
	message.kind = kinds[what & 3];
	message.number = take_odd(in);
	message.member = take8(in);
	message.life = take8(in);
	if (what & 4)
		((uint8_t *)&message)[take8(in) % sizeof(message)] = take8(in);
	shim_post(fd, &message, what & 8 ? take8(in) % sizeof(message) : sizeof(message),
	          &member_socket[what % member_sockets], what >> 4 & 1);
}

static void step(struct input *in)
{
	uint8_t what = take8(in);
	uint32_t k = what >> 4 & 7;

	switch (what & 15) {
	case 0:
		if (end[k & 6] < 0 && !shim_pair(listener, &at, &end[k & 6]))
			end[k & 6] = end[(k & 6) + 1] = -1;
		break;
	case 1:
		shim_use(listener, take8(in));
		break;
	case 2:
		if (end[k] >= 0)
			close(end[k]);
		end[k] = -1;
		break;
	case 3:
	case 4:
	case 5:
	case 6:
	case 7:
	case 8:
		shim_use(end[k], take8(in));
		break;
	case 9:
		say(in);
		break;
	default:
		write_memory(in);
	}
}

static void close_ends(void)
{
	for (uint32_t i = 0; i < 2 * CONNECTIONS; i++)
		if (end[i] >= 0)
			close(end[i]);
	memset(end, -1, sizeof(end));
}

/*
 * Another pair for the next execution, as far as the memory goes: as it was before the first connection, with the places and
 * queues that the library has by now. What the library keeps for itself stays: an input found late may not be enough alone.
 */
static void restore(void)
{
	for (int s = 0; s < 2; s++) {
		struct gz_pair_side *side = &shared->side[s];

		gz_store(&side->accept_head, 0);
		gz_store(&side->accept_tail, 0);
		memset(side->accept, 0, sizeof(side->accept));
		memset(side->holds, 0, sizeof(side->holds));
		gz_store(&side->processes, 1);
		gz_store(&side->member[0], GZ_MEMBER(1, GZ_MEMBER_ALIVE));
		memset(&side->member[1], 0, sizeof(side->member) - sizeof(side->member[0]));
	}
	memset(shared->sock, 0, 64 * sizeof(shared->sock[0]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	static uint32_t failures;

	memset(end, -1, sizeof(end));
	listener = shim_listen(&at);
	if (!shim_pair(listener, &at, end)) {
		memset(end, -1, sizeof(end));
		MUST(failures++ < 200);
	}
	find_memory();
	find_member_sockets();
	for (int i = 0; i < STEPS && in.left && shared; i++)
		step(&in);
	close_ends();
	if (shared)
		restore();
	close(listener);
	return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	shim_begin((*argv)[0]);
	return 0;
}
