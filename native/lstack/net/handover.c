/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "net/handover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <rte_ether.h>
#include <rte_mbuf.h>

#include <gazelle/atomic.h>
#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "core/log.h"
#include "core/worker.h"
#include "packet/mbuf_chain.h"
#include "packet/packet_ring.h"
#include "port/port.h"

struct handover {
	struct packet_rings *rings;
	int wake_fd;
	uint32_t next_ring;                   /* handover_poll goes on here */
	uint64_t handed[GZ_WORKERS_MAX / 64]; /* workers handed something in this turn */
};

void handover_send(struct protocol_stack *stack, uint32_t q, const struct rte_mbuf *m, enum handover_kind kind,
                   uint32_t origin, uint32_t at)
{
	struct packet_ring *ring = packet_ring_of(stack->handover->rings, stack->queue_id, q);
	struct packet_record record = {
		.len = m->pkt_len, .kind = (uint8_t)kind, .visits = (uint8_t)at, .origin = (uint16_t)origin
	};
	uint32_t off = 0;

	if (!packet_ring_has_room(ring, m->pkt_len)) {
		worker_count(stack, GZ_COUNT_steer_dropped, 1);
		return;
	}
	for (; m; m = m->next) {
		packet_ring_put(ring, &record, off, rte_pktmbuf_mtod(m, void *), m->data_len);
		off += m->data_len;
	}
	packet_ring_commit(ring, &record);
	stack->handover->handed[q / 64] |= 1ull << (q % 64);
	worker_count(stack, GZ_COUNT_steered_out, 1);
}

void handover_flush(struct protocol_stack *stack)
{
	struct handover *handover = stack->handover;

	for (uint32_t w = 0; w < GZ_WORKERS_MAX / 64; w++) {
		for (uint64_t bits = handover->handed[w]; bits; bits &= bits - 1) {
			uint32_t q = w * 64 + (uint32_t)__builtin_ctzll(bits);
			struct sockaddr_un addr = { .sun_family = AF_UNIX };

			gz_fence(); /* pairs with the sleeper's between declaring and looking into its rings */
			if (!stack->pages[q] || !gz_load(&stack->pages[q]->asleep))
				continue;
			snprintf(addr.sun_path, sizeof(addr.sun_path), "%.90s/worker.%u.wake", stack->group->run_dir, q);
			/* A full socket will wake it as well; a missing one is a worker that has just died. */
			(void)sendto(handover->wake_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&addr,
			             sizeof(addr));
		}
		handover->handed[w] = 0;
	}
}

/* The peeked record as an mbuf chain; NULL: no mbufs. */
static struct rte_mbuf *read_record(struct protocol_stack *stack, const struct packet_ring *ring, uint32_t len)
{
	struct mbuf_chain chain;

	if (!mbuf_chain_begin(&chain, stack->port->pool))
		return NULL;
	for (uint32_t off = 0, n; off < len; off += n) {
		void *at = mbuf_chain_room(&chain, len - off, &n);

		if (!at)
			return NULL;
		packet_ring_get(ring, off, at, n);
	}
	chain.head->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD; /* the worker that handed it over has verified it */
	return chain.head;
}

static uint32_t poll_ring(struct protocol_stack *stack, struct packet_ring *ring, uint32_t from, uint32_t budget,
                          handover_fn *take)
{
	struct packet_record record;
	uint32_t done = 0;
	bool broken;

	while (done < budget && packet_ring_peek(ring, &record, &broken)) {
		struct rte_mbuf *m = record.len >= RTE_ETHER_HDR_LEN ? read_record(stack, ring, record.len) : NULL;

		packet_ring_drop(ring, &record);
		done++;
		if (!m) {
			worker_count(stack, GZ_COUNT_steer_dropped, 1);
			continue;
		}
		worker_count(stack, GZ_COUNT_steered_in, 1);
		if (record.kind == HANDOVER_FRAGMENT)
			m->ol_flags &= ~(uint64_t)RTE_MBUF_F_RX_L4_CKSUM_GOOD;
		take(stack, m, record.origin, record.visits);
	}
	if (!done && broken) {
		log_warn("ring from worker %u held nonsense and was emptied", from);
		worker_count(stack, GZ_COUNT_steer_dropped, 1);
	}
	return done;
}

uint32_t handover_poll(struct protocol_stack *stack, uint32_t budget, handover_fn *take)
{
	struct handover *handover = stack->handover;
	uint32_t count = stack->group->tot_queue_num, done = 0;

	for (uint32_t i = 0; i < count && done < budget; i++) {
		uint32_t q = (handover->next_ring + i) % count;
		struct packet_ring *ring = packet_ring_of(handover->rings, q, stack->queue_id);

		if (q != stack->queue_id && packet_ring_pending(ring))
			done += poll_ring(stack, ring, q, budget - done, take);
	}
	handover->next_ring = (handover->next_ring + 1) % count;
	return done;
}

bool handover_pending(const struct protocol_stack *stack)
{
	for (uint32_t q = 0; q < stack->group->tot_queue_num; q++)
		if (q != stack->queue_id && packet_ring_pending(packet_ring_of(stack->handover->rings, q, stack->queue_id)))
			return true;
	return false;
}

void handover_woken(struct protocol_stack *stack)
{
	char byte[8];

	for (int i = 0; i < 64 && recv(stack->handover->wake_fd, byte, sizeof(byte), MSG_DONTWAIT) >= 0; i++)
		;
}

static int open_wake_socket(struct protocol_stack *stack)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = &stack->handover };
	const struct gz_group_page *group = stack->group;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd, err;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.90s/worker.%u.wake", group->run_dir, stack->queue_id);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	unlink(addr.sun_path); /* a predecessor's; the plan gives this path to us alone */
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || chmod(addr.sun_path, 0600) ||
	    (group->run_uid && chown(addr.sun_path, group->run_uid, group->run_gid)) ||
	    epoll_ctl(stack->epoll_fd, EPOLL_CTL_ADD, fd, &event)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int handover_open(struct protocol_stack *stack)
{
	struct handover *handover = calloc(1, sizeof(*handover));
	int err;

	if (!handover)
		return -ENOMEM;
	err = packet_rings_open(stack->group->run_dir, stack->group->tot_queue_num, stack->queue_id, &handover->rings);
	if (err)
		goto err_free;
	handover->wake_fd = open_wake_socket(stack);
	if (handover->wake_fd < 0) {
		err = handover->wake_fd;
		goto err_close_rings;
	}
	stack->handover = handover;
	return 0;

err_close_rings:
	packet_rings_close(handover->rings);
err_free:
	free(handover);
	return err;
}
