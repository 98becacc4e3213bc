/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "tcp/flows.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lwip/inet_chksum.h>
#include <lwip/ip.h>
#include <lwip/prot/tcp.h>
#include <lwip/tcp.h>

#include <gazelle/atomic.h>

#include "core/run_memory.h"
#include "tcp/tcp_table.h"
#include "core/worker.h"

#define FLOWS_MAX (1u << 20)
#define TOLD_PER_MS 16u /* few enough that the living do not wait for the dead, and that ARP's queue holds the first */
#define TELL_HOPS 64

/* A slot of the file; only workers of this queue, one at a time, read and write it. */
struct flow {
	ip_addr_t local, peer;
	_Atomic uint32_t ports; /* local << 16 | peer; 0 = free. Written last: a worker may die at any point */
};

struct flows {
	uint32_t format;      /* FLOWS_FORMAT of the worker that wrote it: another build's record is not read */
	_Atomic uint32_t end; /* slots from here on were never used */
	struct flow slot[FLOWS_MAX];
};

_Static_assert(sizeof(struct flow) == FLOW_BYTES, "as the sums of run_memory.h have it");

#define FLOWS_FORMAT (1u << 16 | (uint32_t)sizeof(struct flow))

static struct {
	struct flows *record; /* as long as it may ever be; pages are there up to slot `room` */
	uint32_t room;
	int fd;
	uint32_t *freed, freed_count; /* numbers below `end` */
	struct flow *lost;            /* the predecessor's, told from the last on */
	uint32_t lost_count;
	uint64_t next_ns;
} self;

static off_t slot_offset(uint32_t slot)
{
	return (off_t)(offsetof(struct flows, slot) + (size_t)slot * sizeof(struct flow));
}

/* Another step of slots. False: there is no memory for them now. */
static bool grow(void)
{
	uint32_t step = FLOWS_MAX - self.room < FLOWS_STEP ? FLOWS_MAX - self.room : FLOWS_STEP;

	if (!step || reserve_file(self.fd, 0, (uint64_t)slot_offset(self.room + step)))
		return false;
	self.room += step;
	return true;
}

/* Moves what the predecessor left to memory of our own, and the record begins anew. */
static int take_over(void)
{
	uint32_t end = gz_load(&self.record->end);

	if (self.record->format != FLOWS_FORMAT)
		end = 0;
	if (end > FLOWS_MAX)
		end = FLOWS_MAX;
	if (end) {
		self.lost = malloc(end * sizeof(*self.lost));
		if (!self.lost)
			return -ENOMEM;
	}
	for (uint32_t i = 0; i < end; i++) {
		if (gz_load(&self.record->slot[i].ports))
			memcpy(&self.lost[self.lost_count++], &self.record->slot[i], sizeof(*self.lost));
		gz_store(&self.record->slot[i].ports, 0);
	}
	gz_store(&self.record->end, 0);
	self.record->format = FLOWS_FORMAT;
	/* What it needed beyond the first step goes back; if that cannot be, it stays ours. */
	(void)fallocate(self.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, slot_offset(self.room),
	                (off_t)sizeof(*self.record) - slot_offset(self.room));
	return 0;
}

int flows_open(struct protocol_stack *stack)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/worker.%u.flows", stack->group->run_dir, stack->queue_id);
	self.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (self.fd < 0)
		return -errno;
	if (!grow())
		return -ENOSPC;
	if (ftruncate(self.fd, sizeof(*self.record)))
		return -errno;
	self.record = mmap(NULL, sizeof(*self.record), PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, 0);
	if (self.record == MAP_FAILED)
		return -errno;
	self.freed = mmap(NULL, FLOWS_MAX * sizeof(*self.freed), PROT_READ | PROT_WRITE,
	                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (self.freed == MAP_FAILED)
		return -errno;
	return take_over();
}

uint32_t flows_add(const struct tcp_pcb *pcb)
{
	uint32_t end = gz_load(&self.record->end), flow;
	struct flow *slot;

	if (self.freed_count) {
		flow = self.freed[--self.freed_count];
	} else if (end < self.room || grow()) {
		flow = end;
		gz_store(&self.record->end, end + 1);
	} else {
		return FLOWS_NONE;
	}
	slot = &self.record->slot[flow];
	ip_addr_copy(slot->local, pcb->local_ip);
	ip_addr_copy(slot->peer, pcb->remote_ip);
	gz_store_release(&slot->ports, (uint32_t)pcb->local_port << 16 | pcb->remote_port); /* the addresses are written */
	return flow;
}

void flows_remove(uint32_t flow)
{
	if (flow == FLOWS_NONE)
		return;
	gz_store(&self.record->slot[flow].ports, 0);
	self.freed[self.freed_count++] = flow;
}

/* An ACK with numbers of chance: outside the peer's window, but for a very few, whom it harms as little. */
static void tell(const struct flow *flow)
{
	uint32_t ports = gz_load(&flow->ports), seq = LWIP_RAND(), ack = LWIP_RAND();
	const ip_addr_t *local = &flow->local, *peer = &flow->peer;
	struct tcp_hdr *tcp;
	struct netif *netif;
	struct pbuf *p;

	/* The same peer may have come again with the same port, after a reset that its own packet brought it. */
	if (tcp_table_has(local, (uint16_t)(ports >> 16), peer, (uint16_t)ports))
		return;
	netif = ip_route(local, peer);
	p = netif ? pbuf_alloc(PBUF_IP, TCP_HLEN, PBUF_RAM) : NULL;
	if (!p)
		return; /* it hears by its own next packet */
	tcp = p->payload;
	*tcp = (struct tcp_hdr){ .src = lwip_htons((uint16_t)(ports >> 16)),
		                 .dest = lwip_htons((uint16_t)ports),
		                 .seqno = lwip_htonl(seq),
		                 .ackno = lwip_htonl(ack) };
	TCPH_HDRLEN_FLAGS_SET(tcp, TCP_HLEN / 4, TCP_ACK);
	IF__NETIF_CHECKSUM_ENABLED(netif, NETIF_CHECKSUM_GEN_TCP)
	{
		tcp->chksum = ip_chksum_pseudo(p, IP_PROTO_TCP, p->tot_len, local, peer);
	}
	ip_output_if(p, local, peer, TELL_HOPS, 0, IP_PROTO_TCP, netif);
	pbuf_free(p);
}

bool flows_tell_peers(struct protocol_stack *stack)
{
	if (!self.lost_count)
		return false;
	if (stack->now_ns < self.next_ns)
		return true;
	self.next_ns = stack->now_ns + 1000000u;
	for (uint32_t i = 0; i < TOLD_PER_MS && self.lost_count; i++)
		tell(&self.lost[--self.lost_count]);
	if (self.lost_count)
		return true;
	free(self.lost);
	self.lost = NULL;
	return false;
}
