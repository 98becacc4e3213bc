/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Items of an epoll set: into the set, out of it, and which of them are to be looked at. */
#ifndef SHIM_EPOLL_ITEM_H
#define SHIM_EPOLL_ITEM_H

#include "wait/epoll_types.h"

/* Locks a set to look at it: with shim.items if sets are in it. Returns what epoll_set_leave wants to know. */
bool epoll_set_enter(struct epoll *ep);
void epoll_set_leave(struct epoll *ep, bool items);

/* The set must have an event queue by now. ep->lock held here and in all below. */
void epoll_need_queue(struct epoll *ep);

/* Threads asleep in it, or in wait for it elsewhere, look again. */
void epoll_wake_sleepers(struct epoll *ep);

/* To be looked at; and because something changed, which is an edge. */
void epoll_item_activate(struct item *item);
void epoll_item_changed(struct item *item);
void epoll_item_rest(struct item *item);

/* shim.items held as well: puts a new item with s or inner set into the set; takes one out and frees it. */
void epoll_item_enter(struct item *item, struct epoll *ep, int fd, const struct epoll_event *event);
void epoll_item_drop(struct item *item);

/* The item begins to be served by the stack. shim.items held as well. */
void epoll_item_to_stack(struct item *item);

/* What EPOLL_CTL_MOD does to the item; the real set has it done already. */
void epoll_item_modify(struct item *item, const struct epoll_event *event);

/* epoll_ctl of the real set. 0 or -errno. */
int epoll_real_change(struct epoll *ep, int epfd, int op, int fd, struct epoll_event *event);

#endif
