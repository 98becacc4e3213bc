/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What waits is copied out of the mbufs, so that no number of unfinished datagrams can keep a queue from receiving, and all
 * of it has one budget. A piece that overlaps another is an attack or a fault: the datagram is dropped, in both families
 * (RFC 5722); the same piece again is a duplicate. A datagram is complete when its pieces, which are kept in order and
 * apart, add up to its length.
 */
#include "net/fragments.h"

#include <stddef.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_mbuf.h>

#include "packet/mbuf_chain.h"
#include "tcp/heap.h"

#define AGE_MS 15000u /* a peer that has not sent the rest by then never will */
#define BUCKETS 1024u
#define PIECES_MAX 512u /* of one datagram: 65,535 bytes in pieces of 128 */
#define OVERHEAD 256u   /* what an entry costs besides its bytes */

struct piece {
	struct piece *next; /* further along in the datagram */
	uint16_t at, len;
	uint8_t data[];
};

struct key {
	uint8_t from[16], to[16];
	uint32_t ident;
	uint8_t v6, protocol;
	uint16_t zero;
};

struct datagram {
	struct datagram *chain;         /* of its bucket */
	struct datagram *older, *newer; /* of all */
	struct key key;
	struct piece *first;
	uint32_t since_ms;
	uint32_t total; /* bytes of the whole payload, 0: the last piece has not come */
	uint32_t have, count, cost;
	uint8_t header[RTE_ETHER_HDR_LEN + 60]; /* Ethernet and IP, of the first piece */
	uint32_t header_len;                    /* 0: it has not come */
};

/* One fragment as it lies in its frame. */
struct part {
	struct key key;
	uint32_t header, data; /* lengths: Ethernet and IP header; where the payload begins */
	uint32_t at, len;
	bool more;
};

static struct datagram *buckets[BUCKETS], *oldest, *newest;
static uint32_t waiting;

static uint32_t bucket_of(const struct key *key)
{
	uint32_t words[sizeof(*key) / 4], hash = 0;

	memcpy(words, key, sizeof(*key));
	for (uint32_t i = 0; i < sizeof(*key) / 4; i++)
		hash = (hash ^ words[i]) * 0x9e3779b1u;
	return hash % BUCKETS;
}

static void forget(struct datagram *d)
{
	struct datagram **at = &buckets[bucket_of(&d->key)];

	while (*at != d)
		at = &(*at)->chain;
	*at = d->chain;
	*(d->older ? &d->older->newer : &oldest) = d->newer;
	*(d->newer ? &d->newer->older : &newest) = d->older;
	while (d->first) {
		struct piece *piece = d->first;

		d->first = piece->next;
		lwip_heap_free(piece);
	}
	waiting -= d->cost;
	lwip_heap_free(d);
}

static void charge(struct datagram *d, uint32_t bytes)
{
	d->cost += bytes;
	waiting += bytes;
}

static struct datagram *find_or_make(const struct key *key, uint32_t now_ms)
{
	struct datagram **bucket = &buckets[bucket_of(key)], *d;

	for (d = *bucket; d; d = d->chain)
		if (!memcmp(&d->key, key, sizeof(*key)))
			return d;
	d = lwip_heap_calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	d->key = *key;
	d->since_ms = now_ms;
	d->chain = *bucket;
	*bucket = d;
	d->older = newest;
	*(newest ? &newest->newer : &oldest) = d;
	newest = d;
	charge(d, sizeof(*d) + OVERHEAD);
	return d;
}

/* False: malformed. The headers lie in the first mbuf, and the packet is as long as it says: frame_parse has seen that. */
static bool read_part(const struct rte_mbuf *m, struct part *part)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *), *ip = frame + RTE_ETHER_HDR_LEN;
	uint32_t total;

	memset(part, 0, sizeof(*part));
	if (ip[0] >> 4 == 4) {
		const struct rte_ipv4_hdr *h = (const struct rte_ipv4_hdr *)ip;
		uint16_t offset = rte_be_to_cpu_16(h->fragment_offset);

		part->header = part->data = RTE_ETHER_HDR_LEN + (ip[0] & 15u) * 4;
		total = RTE_ETHER_HDR_LEN + rte_be_to_cpu_16(h->total_length);
		part->at = (offset & RTE_IPV4_HDR_OFFSET_MASK) * 8u;
		part->more = offset & RTE_IPV4_HDR_MF_FLAG;
		part->key.ident = h->packet_id;
		part->key.protocol = h->next_proto_id;
		memcpy(part->key.from, ip + 12, 4);
		memcpy(part->key.to, ip + 16, 4);
	} else {
		uint16_t offset = (uint16_t)(ip[42] << 8 | ip[43]);

		part->header = RTE_ETHER_HDR_LEN + 40;
		part->data = part->header + 8;
		total = part->header + (uint32_t)(ip[4] << 8 | ip[5]);
		part->at = offset & 0xfff8u;
		part->more = offset & 1;
		part->key.v6 = 1;
		part->key.protocol = ip[40];
		memcpy(&part->key.ident, ip + 44, 4);
		memcpy(part->key.from, ip + 8, 16);
		memcpy(part->key.to, ip + 24, 16);
	}
	if (total <= part->data)
		return false;
	part->len = total - part->data;
	if (part->more && part->len % 8)
		return false;
	/* The whole would be longer than a packet can be. */
	return part->at + part->len + part->header - RTE_ETHER_HDR_LEN <= UINT16_MAX;
}

enum fit { FITS, DUPLICATE, OVERLAPS };

/* Where a part belongs among the pieces; *where is the link to it. */
static enum fit find_place(struct datagram *d, const struct part *part, struct piece ***where)
{
	struct piece **link = &d->first;
	uint32_t end = part->at + part->len;

	if (d->total ? end > d->total || (!part->more && end != d->total) : false)
		return OVERLAPS;
	while (*link && (*link)->at < part->at) {
		if ((*link)->at + (*link)->len > part->at)
			return OVERLAPS;
		link = &(*link)->next;
	}
	*where = link;
	if (!*link)
		return FITS;
	if ((*link)->at == part->at && (*link)->len == part->len && part->more == (end != d->total))
		return DUPLICATE;
	return (*link)->at < end || !part->more ? OVERLAPS : FITS;
}

/* Keeps a part; false: no memory. */
static bool keep(struct datagram *d, const struct rte_mbuf *m, const struct part *part, struct piece **where)
{
	struct piece *piece = lwip_heap_alloc(sizeof(*piece) + part->len);
	const void *data;

	if (!piece)
		return false;
	piece->at = (uint16_t)part->at;
	piece->len = (uint16_t)part->len;
	data = rte_pktmbuf_read(m, part->data, part->len, piece->data);
	if (data != piece->data)
		memcpy(piece->data, data, part->len);
	piece->next = *where;
	*where = piece;
	d->have += part->len;
	d->count++;
	charge(d, (uint32_t)sizeof(*piece) + part->len + OVERHEAD / 4);
	if (!part->more)
		d->total = part->at + part->len;
	if (!part->at) {
		memcpy(d->header, rte_pktmbuf_mtod(m, void *), part->header);
		d->header_len = part->header;
	}
	return true;
}

/* The header of the whole: no fragment any more. */
static void finish_header(struct datagram *d)
{
	uint8_t *ip = d->header + RTE_ETHER_HDR_LEN;
	uint32_t len = d->total;

	if (d->key.v6) {
		ip[4] = (uint8_t)(len >> 8), ip[5] = (uint8_t)len;
		ip[6] = d->key.protocol;
		return;
	}
	len += d->header_len - RTE_ETHER_HDR_LEN;
	ip[2] = (uint8_t)(len >> 8), ip[3] = (uint8_t)len;
	ip[6] = ip[7] = ip[10] = ip[11] = 0;
	uint16_t sum = (uint16_t)~lwip_checksum(ip, (int)(d->header_len - RTE_ETHER_HDR_LEN));
	memcpy(ip + 10, &sum, 2);
}

static struct rte_mbuf *join(struct rte_mempool *pool, struct datagram *d)
{
	struct mbuf_chain chain;
	bool whole = mbuf_chain_begin(&chain, pool);

	finish_header(d);
	whole = whole && mbuf_chain_append(&chain, d->header, d->header_len);
	for (const struct piece *piece = d->first; piece && whole; piece = piece->next)
		whole = mbuf_chain_append(&chain, piece->data, piece->len);
	return whole ? chain.head : NULL;
}

struct rte_mbuf *fragments_join(struct rte_mempool *pool, struct rte_mbuf *m, uint32_t now_ms)
{
	struct rte_mbuf *whole = NULL;
	struct piece **where;
	struct datagram *d;
	struct part part;
	enum fit fit;

	if (!read_part(m, &part))
		goto out;
	while (oldest && waiting + part.len + 2 * OVERHEAD + sizeof(struct datagram) > FRAGMENTS_BYTES_MAX)
		forget(oldest);
	d = find_or_make(&part.key, now_ms);
	if (!d)
		goto out;
	fit = find_place(d, &part, &where);
	if (fit == DUPLICATE)
		goto out;
	if (fit == OVERLAPS || d->count == PIECES_MAX || !keep(d, m, &part, where)) {
		forget(d);
		goto out;
	}
	if (d->total && d->have == d->total) {
		whole = join(pool, d);
		forget(d);
	}
out:
	rte_pktmbuf_free(m);
	return whole;
}

void fragments_timer(uint32_t now_ms)
{
	while (oldest && now_ms - oldest->since_ms >= AGE_MS)
		forget(oldest);
}

uint32_t fragments_waiting(void)
{
	return waiting;
}
