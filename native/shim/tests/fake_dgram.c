/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <string.h>

#include "fake_worker.h"

#define RX_ORDER 17u

void fake_bind(struct sock *s, const struct gz_request *request)
{
	s->port = request->port;
	s->peer_port = request->peer_port;
	if (!gz_load(&s->shared->worker.in_block)) {
		gz_store(&s->shared->worker.in_block, fake_take_block(s->arena, RX_ORDER));
		gz_store(&s->shared->worker.out_block, fake_take_block(s->arena, RX_ORDER));
	}
	fake_set_flags(s, GZ_WORKER_OPEN | GZ_WORKER_CONNECTED);
	fake_notify(s);
}

static struct sock *find(uint16_t port)
{
	for (int a = 0; a < APPS; a++) {
		struct arena *arena = fake.apps[a].control ? fake.apps[a].arena : NULL;

		for (uint32_t n = 1; arena && n < arena->next_sock; n++)
			if (arena->sock[n].kind == DGRAM && arena->sock[n].port == port)
				return &arena->sock[n];
	}
	return NULL;
}

/* A datagram into the FIFO of `to`, dropped if there is no room or it hears somebody else. */
static void deliver(struct sock *to, const struct gz_datagram *header, const uint8_t *data, uint16_t from_port)
{
	struct gz_end *out = &to->shared->worker;
	uint32_t block = gz_load(&out->out_block), size = GZ_BLOCK_SIZE(block), head = gz_load(&out->out_head);
	uint32_t used = head - gz_load_acquire(&to->shared->app.in_tail);
	struct gz_datagram as = *header;

	if (size - used < GZ_DATAGRAM_SPACE(as.len) || (to->peer_port && to->peer_port != from_port))
		return;
	as.port = from_port;
	if (!used)
		gz_store(&out->out_base, to->rx_base = head);
	gz_fifo_copy_in(fake_block_at(to->arena, block), size, to->rx_base, head, &as, sizeof(as));
	gz_fifo_copy_in(fake_block_at(to->arena, block), size, to->rx_base, head + (uint32_t)sizeof(as), data, as.len);
	gz_store_release(&out->out_head, head + GZ_DATAGRAM_SPACE(as.len));
	fake_notify(to);
}

static void icmp_error(struct sock *s)
{
	struct gz_end *out = &s->shared->worker;

	gz_store(&out->error, ECONNREFUSED);
	gz_store_release(&out->aux[GZ_AUX_ERRORS], gz_load(&out->aux[GZ_AUX_ERRORS]) + 1);
	fake_notify(s);
}

void fake_datagrams(struct sock *s)
{
	struct gz_end *app = &s->shared->app, *worker = &s->shared->worker;
	uint32_t block = gz_load(&worker->in_block), size = GZ_BLOCK_SIZE(block), head = gz_load_acquire(&app->out_head);
	uint32_t tail = gz_load(&worker->in_tail), base = gz_load(&app->out_base);

	while (tail != head) {
		static uint8_t data[GZ_DATAGRAM_MAX];
		struct gz_datagram header;
		struct sock *to;

		gz_fifo_copy_out(fake_block_at(s->arena, block), size, base, tail, &header, sizeof(header));
		if (header.port == 2)
			break;
		gz_fifo_copy_out(fake_block_at(s->arena, block), size, base, tail + (uint32_t)sizeof(header), data,
		                 header.len);
		tail += GZ_DATAGRAM_SPACE(header.len);
		to = header.port == 7 ? s : find(header.port);
		if (header.port == 1 && s->peer_port)
			icmp_error(s);
		else if (to)
			deliver(to, &header, data, header.port == 7 ? 7 : s->port);
	}
	gz_store_release(&worker->in_tail, tail);
	if (gz_load(&app->flags) & GZ_APP_WANT_SPACE)
		fake_notify(s);
}
