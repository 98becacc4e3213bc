/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "packet/mbuf_chain.h"

#include <stddef.h>
#include <string.h>

#include <rte_mbuf.h>

bool mbuf_chain_begin(struct mbuf_chain *chain, struct rte_mempool *pool)
{
	chain->pool = pool;
	chain->head = chain->last = rte_pktmbuf_alloc(pool);
	return chain->head != NULL;
}

void *mbuf_chain_room(struct mbuf_chain *chain, uint32_t len, uint32_t *n)
{
	struct rte_mbuf *m = chain->last;
	uint32_t room = rte_pktmbuf_tailroom(m);
	void *at;

	if (!room) {
		m->next = rte_pktmbuf_alloc(chain->pool);
		if (!m->next) {
			rte_pktmbuf_free(chain->head);
			return NULL;
		}
		chain->last = m = m->next;
		chain->head->nb_segs++;
		room = rte_pktmbuf_tailroom(m);
	}
	*n = room < len ? room : len;
	at = rte_pktmbuf_mtod_offset(m, void *, m->data_len);
	m->data_len = (uint16_t)(m->data_len + *n);
	chain->head->pkt_len += *n;
	return at;
}

bool mbuf_chain_append(struct mbuf_chain *chain, const void *bytes, uint32_t len)
{
	const uint8_t *from = bytes;

	while (len) {
		uint32_t n;
		void *at = mbuf_chain_room(chain, len, &n);

		if (!at)
			return false;
		memcpy(at, from, n);
		from += n;
		len -= n;
	}
	return true;
}
