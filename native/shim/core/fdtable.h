/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What we know of a file descriptor: nothing (the kernel's), a socket that is or may become accelerated, an epoll set, a
 * descriptor of our own, or a socket the kernel serves for a reason we count. One word per descriptor, read without a lock:
 * a call on a descriptor that is none of ours costs just this look-up.
 */
#ifndef SHIM_FDTABLE_H
#define SHIM_FDTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gazelle/atomic.h>
#include <gazelle/kernel_reason.h>

struct sock;
struct epoll;

#define FD_MAX (1u << 20) /* descriptors beyond it are the kernel's */

/* The two low bits of a word; the rest is a pointer or a reason. 0 = nothing known. */
enum fd_tag { FD_SOCK = 0, FD_KERNEL = 1, FD_EPOLL = 2, FD_OWN = 3, FD_TAGS };

/* What happens to the pointer of a word. */
struct fd_ops {
	void (*closing)(void *p); /* a descriptor is about to be closed; NULL: it need not know */
	void (*closed)(void *p);  /* it was closed by close(); NULL: the same */
	void (*put)(void *p);     /* the descriptor no longer stands for it */
};

extern const struct fd_ops *const fd_ops[FD_TAGS]; /* parts.c; NULL: the table's own tags */

extern _Atomic uintptr_t fd_table[FD_MAX]; /* zero pages until touched */

/* The acquire pairs with fd_put: what the word points to is complete. */
static inline uintptr_t fd_word(int fd)
{
	return (unsigned int)fd < FD_MAX ? gz_load_acquire(&fd_table[fd]) : 0;
}

static inline struct sock *fd_sock(int fd)
{
	uintptr_t word = fd_word(fd);

	return (word & 3) == FD_SOCK ? (struct sock *)word : NULL;
}

static inline struct epoll *fd_epoll(int fd)
{
	uintptr_t word = fd_word(fd);

	return (word & 3) == FD_EPOLL ? (struct epoll *)(word & ~(uintptr_t)3) : NULL;
}

static inline bool fd_is_own(int fd)
{
	return (fd_word(fd) & 3) == FD_OWN;
}

/* Puts a word and returns the old one. A descriptor beyond the table stays the kernel's. */
uintptr_t fd_put(int fd, uintptr_t word);

/* The first descriptor from `fd` on that stands for a socket of ours, -1 if there is none. */
int fd_next_sock(int fd);

/* Notes that the kernel serves this socket, and why; counted for `gazelled status`. */
void fd_set_kernel(int fd, enum gz_kernel_reason reason);

/*
 * Makes `fd` one of our own: moved high, out of the way of programs that count on the lowest free number or on
 * FD_SETSIZE, close-on-exec, and deaf to the program's close(). Its number is kept in *slot, and changed there should the
 * program ever want that number for itself; so the slot must outlive it.
 */
void fd_own(int fd, int *slot);

/* Closes one of our own and sets its slot to -1, which is allowed to begin with. */
void fd_own_close(int *slot);

/* One of our own changes hands: its number is in *to from now on. */
void fd_own_move(int *from, int *to);

/* close() of any descriptor of the program. 0 or -errno. */
int fd_close(int fd);

/*
 * The program takes the number `fd` for itself (dup2 onto it): what is known of it is forgotten as close() would do; one of
 * our own moves elsewhere first.
 */
void fd_forget(int fd);

/* close_range(), sparing our own. 0 or -errno. */
int fd_close_range(unsigned int first, unsigned int last, int flags);

#endif
