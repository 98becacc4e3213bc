/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "wait/epoll_order.h"

#include <gazelle/stamp.h>

#include "core/sock.h"
#include "wait/epoll_types.h"

/* Both in order; of the same age: `one` first. Linked by `next` alone. */
static struct item *merge(struct item *one, struct item *other)
{
	struct item *first = NULL, **end = &first;

	while (one && other) {
		struct item **older = gz_stamp_before(other->stamp, one->stamp) ? &other : &one;

		*end = *older;
		end = &(*older)->next;
		*older = *end;
	}
	*end = one ? one : other;
	return first;
}

/* Puts the first `count` of *rest in order and takes them from there. */
static struct item *sort(struct item **rest, uint32_t count)
{
	struct item *first = *rest, *half;

	if (count == 1) {
		*rest = first->next;
		first->next = NULL;
		return first;
	}
	half = sort(rest, count / 2);
	return merge(half, sort(rest, count - count / 2));
}

void epoll_order_after(struct epoll *ep, struct item *last)
{
	struct item *rest = last ? last->next : ep->first, *first;
	bool unordered = false;
	uint32_t count = 0;

	if (!rest->next)
		return;
	for (struct item *item = rest; item; item = item->next, count++) {
		item->stamp = item->s ? sock_ops_of(item->s)->since(item->s) : gz_stamp();
		unordered |= item != rest && gz_stamp_before(item->stamp, item->prev->stamp);
	}
	if (!unordered)
		return;
	first = sort(&rest, count);
	if (last)
		last->next = first;
	else
		ep->first = first;
	for (struct item *item = first, *before = last; item; before = item, item = item->next) {
		item->prev = before;
		ep->last = item;
	}
}
