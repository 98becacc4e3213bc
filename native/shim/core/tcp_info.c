/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <linux/tcp.h>
#include <string.h>

#include <gazelle/same_host.h>

#include "core/sock.h"
#include "core/tcp_info.h"

/* The kernel's states of enum tcp_state, which its uapi header does not have. */
enum { ESTABLISHED = 1, SYN_SENT = 2, FIN_WAIT2 = 5, CLOSE = 7, CLOSE_WAIT = 8, LAST_ACK = 9 };

static uint8_t state(struct sock *s)
{
	uint32_t flags = sock_peer_flags(s);
	bool shut = gz_load(&s->me->flags) & GZ_APP_SHUT_WR;

	if (flags & GZ_WORKER_DEAD)
		return CLOSE;
	if (!(flags & GZ_WORKER_CONNECTED))
		return SYN_SENT;
	if (flags & GZ_WORKER_FIN)
		return !shut ? CLOSE_WAIT : flags & GZ_WORKER_FIN_ACKED ? CLOSE : LAST_ACK;
	return shut ? FIN_WAIT2 : ESTABLISHED;
}

int tcp_info_get(struct sock *s, void *value, socklen_t *len)
{
	uint32_t mss = sock_name(s)->mss, rtt = gz_load(&s->peer->aux[GZ_AUX_RTT_US]);
	struct tcp_info info = {
		.tcpi_state = state(s),
		.tcpi_snd_mss = mss,
		.tcpi_rcv_mss = mss,
		.tcpi_advmss = mss,
		.tcpi_pmtu = shim.group->mtu,
		.tcpi_rtt = rtt,
		.tcpi_rttvar = rtt / 2,
		.tcpi_snd_cwnd = mss ? gz_load(&s->peer->aux[GZ_AUX_CWND]) / mss : 0,
		.tcpi_total_retrans = gz_load(&s->peer->aux[GZ_AUX_RETRANS]),
		.tcpi_unacked = mss ? (gz_load(&s->me->out_head) - gz_load(&s->peer->in_tail) + mss - 1) / mss : 0,
		.tcpi_bytes_received = gz_load(&s->peer->out_head),
		.tcpi_bytes_acked = gz_load(&s->peer->in_tail),
	};

	if (attachment_is_program(s->attachment)) { /* no packets: a cache line's way there and back, and no window but the FIFO */
		info.tcpi_rtt = 1;
		info.tcpi_snd_cwnd = GZ_PAIR_BLOCK / mss;
	}
	if ((int)*len < 0)
		return -EINVAL;
	if (*len > sizeof(info))
		*len = sizeof(info);
	memcpy(value, &info, *len);
	return 0;
}
