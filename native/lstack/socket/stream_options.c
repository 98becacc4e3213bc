/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A connection's options, as the application has written them. */
#include <lwip/priv/tcp_priv.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>

#include "socket/conn.h"
#include "core/worker.h"
#include "socket/sockets.h"
#include "socket/stream.h"

#define SLOW_TICK_NS (TCP_SLOW_INTERVAL * 1000000ull)

/* TCP_MAXSEG, set before the connection was made. */
void stream_limit_segments(struct conn *conn)
{
	uint32_t most = gz_load(&conn->shared->options.maxseg);

	if (most >= 88 && most < conn->pcb->mss) /* Linux takes no less */
		conn->pcb->mss = (u16_t)most;
}

/* True while something was sent again, or a window that is shut was asked about, and no answer has come. */
static bool is_unanswered(const struct tcp_pcb *pcb)
{
	return pcb->nrtx || pcb->persist_probe || (ip_get_option(pcb, SOF_KEEPALIVE) && pcb->keep_cnt_sent);
}

/*
 * TCP_USER_TIMEOUT (RFC 5482), as Linux counts it: from the first retransmission, or keepalive probe from the last segment that
 * came. lwIP calls this at each of its slow ticks.
 */
static err_t look_at_silence(void *arg, struct tcp_pcb *pcb)
{
	struct conn *conn = arg;
	uint64_t now_ns, most_ns;

	if (!conn || !is_unanswered(pcb)) {
		if (conn)
			conn->silent_ns = 0;
		return ERR_OK;
	}
	now_ns = conn->sockets->stack->now_ns;
	most_ns = gz_load(&conn->shared->options.user_timeout_ms) * 1000000ull;
	if (!conn->silent_ns)
		conn->silent_ns = now_ns - (pcb->nrtx || pcb->persist_probe ? 0 : (tcp_ticks - pcb->tmr) * SLOW_TICK_NS);
	if (!most_ns || now_ns - conn->silent_ns < most_ns)
		return ERR_OK;
	tcp_abandon(pcb, 0);
	return ERR_ABRT;
}

void stream_apply_options(struct conn *conn)
{
	struct gz_options *o = &conn->shared->options;
	struct tcp_pcb *pcb = conn->pcb;

	if (!pcb)
		return;
	if (!gz_load(&o->nodelay)) {
		tcp_clear_flags(pcb, TF_NODELAY);
	} else if (!tcp_is_flag_set(pcb, TF_NODELAY)) {
		tcp_set_flags(pcb, TF_NODELAY);
		if (!conn->connecting) {
			/* What was written before leaves now, as Linux has it, corked or not; what follows may be corked again. */
			tcp_clear_flags(pcb, TF_CORK);
			stream_send_push(conn);
			if (!conn->pcb)
				return;
			tcp_output(pcb);
		}
	}
	if (gz_load(&o->cork))
		tcp_set_flags(pcb, TF_CORK);
	else
		tcp_clear_flags(pcb, TF_CORK);
	if (gz_load(&o->keepalive))
		ip_set_option(pcb, SOF_KEEPALIVE);
	else
		ip_reset_option(pcb, SOF_KEEPALIVE);
	uint32_t idle = gz_load(&o->keepidle_s), intvl = gz_load(&o->keepintvl_s), cnt = gz_load(&o->keepcnt);
	if (idle && idle <= 32767)
		pcb->keep_idle = idle * 1000u;
	if (intvl && intvl <= 32767)
		pcb->keep_intvl = intvl * 1000u;
	if (cnt && cnt <= 127)
		pcb->keep_cnt = cnt;
	tcp_poll(pcb, gz_load(&o->user_timeout_ms) ? look_at_silence : NULL, 1);
	uint32_t tos = gz_load(&o->tos), ttl = gz_load(&o->ttl);
	if (tos <= 255)
		pcb->tos = (u8_t)tos;
	if (ttl && ttl <= 255)
		pcb->ttl = (u8_t)ttl;
}
