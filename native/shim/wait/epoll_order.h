/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What became ready first is told first, as by the kernel. */
#ifndef SHIM_EPOLL_ORDER_H
#define SHIM_EPOLL_ORDER_H

struct epoll;
struct item;

/* The active items behind `last` (NULL: all) have come by bells, in no order: puts them in the order in which they became ready. */
void epoll_order_after(struct epoll *ep, struct item *last);

#endif
