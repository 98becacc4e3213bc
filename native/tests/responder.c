/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A worker with a responder instead of attached applications: the network side alone, against a real kernel. It takes the
 * place of apps.h; ports:
 *   7    echo            9   discard            19  sends until the peer has had enough
 *   6379 answers every RESP array with +PONG: redis-benchmark -t ping_mbulk
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lwip/priv/tcp_priv.h>

#include "apps/apps.h"
#include "core/log.h"
#include "tcp/tcp_table.h"
#include "core/worker.h"

static char ballast[65536];

struct session {
	uint16_t port;
	uint32_t lines;    /* redis: commands seen, not answered yet */
	struct pbuf *held; /* echo: received, not yet written */
	bool eof;
};

static void pump(struct session *s, struct tcp_pcb *pcb)
{
	if (s->port == 19)
		while (tcp_sndbuf(pcb) >= sizeof(ballast) - 16 &&
		       tcp_write(pcb, ballast, sizeof(ballast) - 16, TCP_WRITE_FLAG_MORE) == ERR_OK)
			;
	while (s->held && tcp_sndbuf(pcb) >= s->held->len) {
		struct pbuf *p = s->held;

		if (tcp_write(pcb, p->payload, p->len, TCP_WRITE_FLAG_COPY) != ERR_OK)
			break;
		tcp_recved(pcb, p->len);
		s->held = p->next;
		p->next = NULL;
		p->tot_len = p->len;
		pbuf_free(p);
	}
	for (; s->lines; s->lines--)
		if (tcp_write(pcb, "+PONG\r\n", 7, 0) != ERR_OK)
			break;
	if (s->eof && !s->held)
		tcp_shutdown(pcb, 0, 1);
	tcp_output(pcb);
}

static err_t on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct session *s = arg;

	if (!p) {
		s->eof = true;
		tcp_set_flags(pcb, TF_RXCLOSED);
		pump(s, pcb);
		return ERR_OK;
	}
	if (s->port == 7) {
		struct pbuf **last = &s->held;

		while (*last) /* not pbuf_cat: the sum of a long chain does not fit its tot_len */
			last = &(*last)->next;
		*last = p;
		pump(s, pcb);
		return ERR_OK;
	}
	if (s->port == 6379)
		for (const struct pbuf *q = p; q; q = q->next)
			for (const char *c = q->payload;
			     (c = memchr(c, '*', (size_t)((char *)q->payload + q->len - c))); c++)
				s->lines++;
	tcp_recved(pcb, p->tot_len);
	pbuf_free(p);
	pump(s, pcb);
	return ERR_OK;
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, u16_t len)
{
	pump(arg, pcb);
	return ERR_OK;
}

static void on_error(void *arg, err_t err)
{
	struct session *s = arg;

	if (s->held)
		pbuf_free(s->held);
	free(s);
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct session *s = pcb ? calloc(1, sizeof(*s)) : NULL;

	if (!s)
		return ERR_MEM;
	s->port = pcb->local_port;
	tcp_arg(pcb, s);
	tcp_recv(pcb, on_recv);
	tcp_sent(pcb, on_sent);
	tcp_err(pcb, on_error);
	pump(s, pcb);
	return ERR_OK;
}

int apps_open(struct protocol_stack *stack)
{
	static const uint16_t ports[] = { 7, 9, 19, 6379 };

	memset(ballast, 'x', sizeof(ballast));
	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		struct tcp_pcb *pcb = tcp_new_ip_type(IPADDR_TYPE_V4);

		tcp_table_enter(0);
		tcp_table_listeners(ports[i]);
		if (!pcb || tcp_bind(pcb, IP4_ADDR_ANY, ports[i]) != ERR_OK)
			return -EADDRINUSE;
		tcp_accept(tcp_listen_with_backlog(pcb, 4096), on_accept);
		tcp_table_leave();
	}
	return 0;
}

uint32_t apps_poll(struct protocol_stack *stack)
{
	return 0;
}

void apps_flush(struct protocol_stack *stack)
{
}

bool apps_wait_here(struct protocol_stack *stack)
{
	(void)stack;
	return false;
}

bool apps_pending(struct protocol_stack *stack)
{
	return false;
}

void apps_event(struct protocol_stack *stack, void *owner, uint32_t events)
{
}

void apps_drain(struct protocol_stack *stack)
{
}
