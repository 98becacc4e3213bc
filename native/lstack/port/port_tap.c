/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Our own queue of a multi-queue kernel tap with vnet headers. A frame of up to 64 KB comes in by one readv into mbufs that
 * were posted before, and leaves by one writev straight from lwIP's pbufs, that is from the applications' FIFOs. Segments
 * of one connection that follow each other in a turn leave as one super-frame (TSO): a transmit runs the peer's whole
 * receive path in the kernel, so fewer and larger ones are what makes this port fast.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <rte_ether.h>
#include <rte_mbuf.h>

#include <lwip/pbuf.h>
#include <lwip/prot/ethernet.h>
#include <lwip/prot/ip4.h>
#include <lwip/prot/tcp.h>

#include <gazelle/group_page.h>
#include <gazelle/worker_page.h>

#include "packet/checksum.h"
#include "port/port.h"
#include "core/counters.h"

#define FRAME_MAX (65535u + RTE_ETHER_HDR_LEN)
#define POSTED_MAX 40u /* mbufs that hold the largest frame */
#define NARROW 2u /* mbufs a read is given while frames are small: the kernel checks every one of them, each time */
#define WIDE_FRAMES 256u /* after a large frame the next ones are expected to be large */
#define QUEUED_MAX 256u  /* frames of a turn before they are flushed early */
#define IOV_PARTS 1000u  /* below the kernel's IOV_MAX with room for the headers */
#define HEADERS_MAX 128u /* Ethernet, IP and TCP with all options */

struct tap {
	struct port port;
	int fd;
	uint32_t room; /* bytes one mbuf takes */
	uint32_t post; /* mbufs to keep posted */
	uint32_t posted_count;
	struct rte_mbuf *posted[POSTED_MAX];
	struct iovec in[1 + POSTED_MAX];
	struct virtio_net_hdr in_header;
	uint32_t wide;  /* frames until reads are narrow again */
	uint8_t *spill; /* FRAME_MAX bytes: the rest of a frame that came by a narrow read */
	uint32_t queued_count;
	struct pbuf *queued[QUEUED_MAX];
	struct iovec out[IOV_PARTS + 8];
};

/* A TCP frame about to be sent, as far as joining and checksums need to know it. */
struct segment {
	uint8_t *ip, *tcp;
	uint32_t l2, l3, l4; /* header lengths */
	uint32_t payload;
	bool v6;
};

/* ------------------------------------------------------------------ receive */

/* Tops up the posted mbufs. With fewer than the largest frame needs, a frame that does not fit is lost, and counted. */
static void post(struct tap *tap)
{
	while (tap->posted_count < tap->post) {
		struct rte_mbuf *m = rte_pktmbuf_alloc(tap->port.pool);

		if (!m) {
			counter_add(tap->port.page, GZ_COUNT_alloc_failed, 1);
			return;
		}
		tap->posted[tap->posted_count] = m;
		tap->in[1 + tap->posted_count].iov_base = rte_pktmbuf_mtod(m, void *);
		tap->in[1 + tap->posted_count].iov_len = tap->room;
		tap->posted_count++;
	}
}

/* Makes a chain of the first mbufs, which hold `len` bytes, and closes the gap they leave. */
static struct rte_mbuf *take_chain(struct tap *tap, uint32_t len)
{
	struct rte_mbuf *head = tap->posted[0], *last = head;
	uint32_t used = 0;

	head->pkt_len = len;
	for (;;) {
		uint32_t n = len < tap->room ? len : tap->room;

		last->data_len = (uint16_t)n;
		len -= n;
		used++;
		if (!len)
			break;
		last->next = tap->posted[used];
		last = last->next;
	}
	last->next = NULL;
	head->nb_segs = (uint16_t)used;
	tap->posted_count -= used;
	memmove(tap->posted, tap->posted + used, tap->posted_count * sizeof(tap->posted[0]));
	/* iov_len never changes, only the bases move down */
	memmove(tap->in + 1, tap->in + 1 + used, tap->posted_count * sizeof(tap->in[0]));
	return head;
}

/* The rest of a large frame, from where a narrow read left it to the mbufs it belongs in. */
static void unspill(struct tap *tap, uint32_t len)
{
	uint32_t at = 0;

	for (uint32_t i = NARROW; at < len && i < tap->posted_count; i++) {
		uint32_t n = len - at < tap->room ? len - at : tap->room;

		memcpy(rte_pktmbuf_mtod(tap->posted[i], void *), tap->spill + at, n);
		at += n;
	}
}

/* One frame with its header into the posted mbufs. As readv; more bytes than they hold: it is lost. */
static ssize_t read_frame(struct tap *tap)
{
	struct iovec narrow[] = { tap->in[0], tap->in[1], tap->in[2], { tap->spill, FRAME_MAX } };
	ssize_t got, small = (ssize_t)(sizeof(tap->in_header) + NARROW * tap->room);

	if (tap->wide || tap->posted_count < NARROW) {
		got = readv(tap->fd, tap->in, (int)(1 + tap->posted_count));
	} else {
		got = readv(tap->fd, narrow, sizeof(narrow) / sizeof(narrow[0]));
		if (got > small)
			unspill(tap, (uint32_t)(got - small));
	}
	if (got > small)
		tap->wide = WIDE_FRAMES;
	else if (got >= 0 && tap->wide)
		tap->wide--;
	return got;
}

static uint16_t tap_receive(struct port *port, struct rte_mbuf **frames, uint16_t n)
{
	struct tap *tap = (struct tap *)port;
	uint16_t count = 0;

	for (uint16_t tries = 0; tries < n; tries++) {
		struct rte_mbuf *m;
		ssize_t got;

		if (tap->posted_count < tap->post)
			post(tap);
		if (!tap->posted_count)
			break;
		got = read_frame(tap);
		if (got < 0) {
			if (errno == EAGAIN || errno == EINTR || errno == EBADFD || errno == EIO)
				break;
			counter_add(port->page, GZ_COUNT_rx_dropped, 1); /* EFAULT: it did not fit */
			continue;
		}
		got -= (ssize_t)sizeof(tap->in_header);
		if (got < RTE_ETHER_HDR_LEN || (size_t)got > (size_t)tap->posted_count * tap->room) {
			counter_add(port->page, GZ_COUNT_rx_dropped, 1);
			continue;
		}
		m = take_chain(tap, (uint32_t)got);
		if (tap->in_header.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID))
			m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
		frames[count++] = m;
	}
	return count;
}

/* ------------------------------------------------------------------ send */

/* True if the frame is TCP with all its headers in the first pbuf. */
static bool parse_tcp(struct pbuf *p, struct segment *s)
{
	uint8_t *frame = p->payload;
	uint16_t type;

	s->l2 = SIZEOF_ETH_HDR;
	if (p->len < s->l2 + 20u)
		return false;
	memcpy(&type, frame + 12, 2);
	s->ip = frame + s->l2;
	if (type == PP_HTONS(ETHTYPE_IP)) {
		struct ip_hdr *ip = (struct ip_hdr *)s->ip;

		s->v6 = false;
		s->l3 = IPH_HL_BYTES(ip);
		if (IPH_PROTO(ip) != IPPROTO_TCP || (IPH_OFFSET(ip) & PP_HTONS(IP_OFFMASK | IP_MF)))
			return false;
	} else if (type == PP_HTONS(ETHTYPE_IPV6)) {
		s->v6 = true;
		s->l3 = 40;
		if (p->len < s->l2 + s->l3 || s->ip[6] != IPPROTO_TCP)
			return false;
	} else {
		return false;
	}
	if (p->len < s->l2 + s->l3 + TCP_HLEN)
		return false;
	s->tcp = s->ip + s->l3;
	s->l4 = TCPH_HDRLEN_BYTES((struct tcp_hdr *)s->tcp);
	if (s->l4 < TCP_HLEN || p->len < s->l2 + s->l3 + s->l4)
		return false;
	s->payload = p->tot_len - s->l2 - s->l3 - s->l4;
	return true;
}

/* True if b may follow a's super-frame of `joined` payload bytes: same flow and headers, and nothing between them. */
static bool follows(const struct segment *a, const struct segment *b, uint32_t joined)
{
	const struct tcp_hdr *x = (const struct tcp_hdr *)a->tcp, *y = (const struct tcp_hdr *)b->tcp;

	return a->v6 == b->v6 && a->l3 == b->l3 && a->l4 == b->l4 && b->payload && b->payload <= a->payload &&
	       !(TCPH_FLAGS(y) & ~(TCP_ACK | TCP_PSH | TCP_FIN)) && x->src == y->src && x->dest == y->dest &&
	       lwip_ntohl(y->seqno) == lwip_ntohl(x->seqno) + joined && x->ackno == y->ackno && x->wnd == y->wnd &&
	       !memcmp(x + 1, y + 1, a->l4 - TCP_HLEN) &&
	       (a->v6 ? !memcmp(a->ip + 8, b->ip + 8, 32) && !memcmp(a->ip, b->ip, 4)
	              : !memcmp(a->ip + 12, b->ip + 12, a->l3 - 12) && a->ip[1] == b->ip[1] && a->ip[8] == b->ip[8]) &&
	       !memcmp(a->ip - a->l2, b->ip - b->l2, a->l2);
}

/* Appends what lies behind the first `skip` bytes of a pbuf chain. */
static uint32_t append(struct iovec *out, uint32_t count, const struct pbuf *p, uint32_t skip)
{
	for (; p; p = p->next) {
		if (p->len > skip) {
			out[count].iov_base = (uint8_t *)p->payload + skip;
			out[count].iov_len = p->len - skip;
			count++;
			skip = 0;
		} else {
			skip -= p->len;
		}
	}
	return count;
}

static void set_lengths(uint8_t *ip, bool v6, uint32_t l3, uint32_t l4_len)
{
	if (v6) {
		uint16_t len = lwip_htons((uint16_t)l4_len);

		memcpy(ip + 4, &len, 2);
		return;
	}
	struct ip_hdr *h = (struct ip_hdr *)ip;

	IPH_LEN_SET(h, lwip_htons((uint16_t)(l3 + l4_len)));
	IPH_CHKSUM_SET(h, 0);
	IPH_CHKSUM_SET(h, (u16_t)~lwip_checksum(h, (int)l3));
}

/* One frame or super-frame: queued[first..first + n). s is the first one's. */
static void write_frame(struct tap *tap, uint32_t first, uint32_t n, struct segment *s, uint32_t joined, uint8_t last_flags)
{
	struct virtio_net_hdr header = { .flags = 0 };
	struct pbuf *p = tap->queued[first];
	uint32_t headers, count = 1, bytes;
	uint8_t copy[HEADERS_MAX];

	tap->out[0].iov_base = &header;
	tap->out[0].iov_len = sizeof(header);
	if (!s) {
		count = append(tap->out, count, p, 0);
		bytes = p->tot_len;
		goto write;
	}
	headers = s->l2 + s->l3 + s->l4;
	bytes = headers + joined;
	header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header.csum_start = (uint16_t)(s->l2 + s->l3);
	header.csum_offset = offsetof(struct tcp_hdr, chksum);
	if (n > 1) {
		/* The first one's headers serve all: they are copied, since lwIP may have to send that segment again. */
		memcpy(copy, s->ip - s->l2, headers);
		s->tcp = copy + s->l2 + s->l3;
		s->ip = copy + s->l2;
		header.gso_type = s->v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
		header.gso_size = (uint16_t)s->payload;
		header.hdr_len = (uint16_t)headers;
		set_lengths(s->ip, s->v6, s->l3, s->l4 + joined);
		TCPH_SET_FLAG((struct tcp_hdr *)s->tcp, last_flags & (TCP_PSH | TCP_FIN));
		tap->out[count].iov_base = copy;
		tap->out[count++].iov_len = headers;
		for (uint32_t i = first; i < first + n; i++)
			count = append(tap->out, count, tap->queued[i], headers);
	} else {
		count = append(tap->out, count, p, 0);
	}
	((struct tcp_hdr *)s->tcp)->chksum = checksum_pseudo(s->ip, IPPROTO_TCP, s->l4 + joined);
write:
	if (writev(tap->fd, tap->out, (int)count) < 0) {
		counter_add(tap->port.page, GZ_COUNT_tx_dropped, n); /* TCP sends it again */
		return;
	}
	counter_add(tap->port.page, GZ_COUNT_tx_packets, 1);
	counter_add(tap->port.page, GZ_COUNT_tx_bytes, bytes);
}

static void tap_flush(struct port *port)
{
	struct tap *tap = (struct tap *)port;
	uint32_t i = 0;

	while (i < tap->queued_count) {
		struct segment s, next;
		uint32_t n = 1, joined, parts = 0;
		uint8_t flags;

		if (!parse_tcp(tap->queued[i], &s) || s.l2 + s.l3 + s.l4 > HEADERS_MAX) {
			write_frame(tap, i++, 1, NULL, 0, 0);
			continue;
		}
		joined = s.payload;
		flags = TCPH_FLAGS((struct tcp_hdr *)s.tcp);
		parts = pbuf_clen(tap->queued[i]);
		/* Only the last one may be shorter or carry FIN, and it ends the super-frame. */
		while (s.payload && i + n < tap->queued_count && !(flags & ~(TCP_ACK | TCP_PSH)) &&
		       joined == n * s.payload && parse_tcp(tap->queued[i + n], &next) && follows(&s, &next, joined) &&
		       s.l3 + s.l4 + joined + next.payload <= 65535 && parts + pbuf_clen(tap->queued[i + n]) <= IOV_PARTS) {
			parts += pbuf_clen(tap->queued[i + n]);
			joined += next.payload;
			flags |= TCPH_FLAGS((struct tcp_hdr *)next.tcp);
			n++;
		}
		write_frame(tap, i, n, &s, joined, flags);
		i += n;
	}
	for (i = 0; i < tap->queued_count; i++)
		pbuf_free(tap->queued[i]);
	tap->queued_count = 0;
}

static void tap_send(struct port *port, struct pbuf *frame)
{
	struct tap *tap = (struct tap *)port;

	if (tap->queued_count == QUEUED_MAX)
		tap_flush(port);
	pbuf_ref(frame);
	tap->queued[tap->queued_count++] = frame;
}

static const struct port_ops tap_ops = { .receive = tap_receive, .send = tap_send, .flush = tap_flush };

/* The group's address for the stack; without one, the host side's with another last byte, locally administered. */
static int choose_mac(struct tap *tap, const struct gz_group_page *group)
{
	static const uint8_t zero[6];
	struct ifreq ifr = { 0 };

	if (memcmp(group->mac, zero, 6)) {
		memcpy(tap->port.mac, group->mac, 6);
		return 0;
	}
	if (ioctl(tap->fd, SIOCGIFHWADDR, &ifr))
		return -errno;
	memcpy(tap->port.mac, ifr.ifr_hwaddr.sa_data, 6);
	tap->port.mac[0] = (uint8_t)((tap->port.mac[0] | 2) & ~1);
	tap->port.mac[5] ^= 0x80;
	return 0;
}

int port_tap_open(const struct port_setup *setup, struct port **port)
{
	int header_size = sizeof(struct virtio_net_hdr), err;
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE };
	struct tap *tap = calloc(1, sizeof(*tap));

	if (!tap)
		return -ENOMEM;
	err = -ENOMEM;
	tap->spill = malloc(FRAME_MAX);
	if (!tap->spill)
		goto err_free_tap;
	tap->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	err = -errno;
	if (tap->fd < 0)
		goto err_free_tap;
	memcpy(ifr.ifr_name, setup->group->device, sizeof(ifr.ifr_name));
	if (ioctl(tap->fd, TUNSETIFF, &ifr) || ioctl(tap->fd, TUNSETVNETHDRSZ, &header_size) ||
	    ioctl(tap->fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)) {
		err = -errno;
		goto err_close_tap;
	}
	tap->port.ops = &tap_ops;
	tap->port.page = setup->page;
	tap->port.pool = setup->pool;
	tap->port.mtu = (uint16_t)setup->group->mtu;
	tap->port.wait_fd = tap->fd;
	err = choose_mac(tap, setup->group);
	if (err)
		goto err_close_tap;
	tap->room = rte_pktmbuf_data_room_size(setup->pool) - RTE_PKTMBUF_HEADROOM;
	tap->post = (FRAME_MAX + tap->room - 1) / tap->room;
	if (tap->post > POSTED_MAX)
		tap->post = POSTED_MAX;
	tap->in[0].iov_base = &tap->in_header;
	tap->in[0].iov_len = sizeof(tap->in_header);
	*port = &tap->port;
	return 0;

err_close_tap:
	close(tap->fd);
err_free_tap:
	free(tap->spill);
	free(tap);
	return err;
}
