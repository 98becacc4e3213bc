/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What an epoll set must hear of the sockets in it. The sets stand above the parts that say it, so parts.c names the functions. */
#ifndef SHIM_WATCH_H
#define SHIM_WATCH_H

#include <stdint.h>

struct attachment;
struct sock;

struct watch_ops {
	/* Socket s is to be looked at: a change that no bell announces. shim.lock may be held. */
	void (*activate)(struct sock *s);
	/* Number n of an attachment now also stands for s; and no longer does. */
	void (*claim)(struct sock *s, struct attachment *a, uint32_t n);
	void (*unclaim)(struct sock *s, struct attachment *a, uint32_t n);
	/* The last descriptor of s is about to be closed. */
	void (*closing)(struct sock *s);
	/* s is closed, or the kernel's. */
	void (*forget)(struct sock *s);
};

extern const struct watch_ops watch;

#endif
