/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Which item of a set a bell means: by attachment and socket number. What is entered is also what the attachment is asked to ring for.
 * A number given back to its attachment must have left the index before: the next socket of that number is another one.
 * ep->lock held in all.
 */
#ifndef SHIM_EPOLL_INDEX_H
#define SHIM_EPOLL_INDEX_H

#include <stdint.h>

struct epoll;
struct item;
struct attachment;
struct sock;

/* Number n of the attachment means `item` (NULL: nothing) in this set. */
void index_put(struct epoll *ep, struct attachment *a, uint32_t n, struct item *item);

/* The same for all numbers of a socket. */
void index_sock(struct epoll *ep, struct sock *s, struct item *item);

/* Number n means the item, or another one of the same socket that is there already. */
void index_claim(struct item *item, struct attachment *a, uint32_t n);

/* By number, the items of an attachment; NULL: it has none here. */
struct item **index_of(struct epoll *ep, const struct attachment *a);

/* The set is gone. */
void index_free(struct epoll *ep);

#endif
