/* SPDX-License-Identifier: MulanPSL-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/resource.h>

#include "core/counts.h"
#include "core/fdtable.h"
#include "core/real.h"

_Atomic uintptr_t fd_table[FD_MAX];
static _Atomic unsigned int highest;         /* no word beyond it was ever set */
static _Atomic unsigned int highest_program; /* nor one that is not of our own */

static void raise_to(_Atomic unsigned int *mark, unsigned int fd)
{
	unsigned int high = gz_load(mark);

	while (fd > high && !gz_cas(mark, &high, fd))
		;
}

uintptr_t fd_put(int fd, uintptr_t word)
{
	if ((unsigned int)fd >= FD_MAX)
		return 0;
	raise_to(&highest, (unsigned int)fd);
	if ((word & 3) != FD_OWN)
		raise_to(&highest_program, (unsigned int)fd);
	return gz_exchange(&fd_table[fd], word);
}

int fd_next_sock(int fd)
{
	for (unsigned int high = gz_load(&highest_program); (unsigned int)fd <= high; fd++)
		if (fd_sock(fd))
			return fd;
	return -1;
}

static void *pointer_of(uintptr_t word)
{
	return (void *)(word & ~(uintptr_t)3);
}

/* A descriptor no longer stands for what `word` says. */
static void drop(uintptr_t word)
{
	if ((word & 3) == FD_KERNEL)
		count_kernel((enum gz_kernel_reason)(word >> 2), -1);
	else if (pointer_of(word) && fd_ops[word & 3])
		fd_ops[word & 3]->put(pointer_of(word));
}

void fd_set_kernel(int fd, enum gz_kernel_reason reason)
{
	if ((unsigned int)fd >= FD_MAX)
		return;
	count_kernel(reason, 1);
	drop(fd_put(fd, (uintptr_t)reason << 2 | FD_KERNEL));
}

/* Half way up to the limit, where programs that count descriptors from below rarely come. */
static int move_high(int fd)
{
	struct rlimit limit = { 0 };
	int least = 64;

	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur / 2 > 64)
		least = limit.rlim_cur / 2 < FD_MAX / 2 ? (int)(limit.rlim_cur / 2) : (int)(FD_MAX / 2);
	return REAL(fcntl)(fd, F_DUPFD_CLOEXEC, least);
}

void fd_own(int fd, int *slot)
{
	int high = move_high(fd);

	if (high >= 0) {
		UNCANCELLED(close, fd);
		fd = high;
	} else {
		REAL(fcntl)(fd, F_SETFD, FD_CLOEXEC);
	}
	__atomic_store_n(slot, fd, __ATOMIC_RELEASE);
	drop(fd_put(fd, (uintptr_t)slot | FD_OWN));
}

void fd_own_close(int *slot)
{
	int fd = __atomic_exchange_n(slot, -1, __ATOMIC_ACQ_REL);

	if (fd < 0)
		return;
	fd_put(fd, 0);
	(void)UNCANCELLED(close, fd);
}

void fd_own_move(int *from, int *to)
{
	*to = *from;
	fd_put(*to, (uintptr_t)to | FD_OWN);
	*from = -1;
}

/* A descriptor is about to be closed. */
static void close_soon(uintptr_t word)
{
	const struct fd_ops *ops = fd_ops[word & 3];

	if (pointer_of(word) && ops && ops->closing)
		ops->closing(pointer_of(word));
}

int fd_close(int fd)
{
	if (fd_is_own(fd))
		return -EBADF; /* as far as the program knows it is not open */
	uintptr_t word = fd_word(fd) ? fd_put(fd, 0) : 0;

	close_soon(word);
	/* The number first, then what it stood for: another thread may be given the number at once. */
	int err = UNCANCELLED(close, fd) ? -errno : 0;
	if (pointer_of(word) && fd_ops[word & 3] && fd_ops[word & 3]->closed)
		fd_ops[word & 3]->closed(pointer_of(word));
	drop(word);
	return err;
}

void fd_forget(int fd)
{
	uintptr_t word = fd_put(fd, 0);

	if ((word & 3) == FD_OWN) {
		int *slot = (int *)(word & ~(uintptr_t)3), high = move_high(fd);

		if (high >= 0) {
			fd_put(high, word);
			__atomic_store_n(slot, high, __ATOMIC_RELEASE);
		}
		return;
	}
	close_soon(word);
	drop(word);
}

int fd_close_range(unsigned int first, unsigned int last, int flags)
{
	unsigned int high = gz_load(&highest);

	if (first > last)
		return -EINVAL;
	if (flags & CLOSE_RANGE_CLOEXEC)
		return REAL(close_range)(first, last, flags) ? -errno : 0; /* ours are so already */
	for (unsigned int fd = first; fd <= last && fd <= high; fd++) {
		if (!fd_is_own((int)fd)) {
			if (fd_word((int)fd))
				(void)fd_close((int)fd);
			continue;
		}
		if (fd > first && REAL(close_range)(first, fd - 1, flags))
			return -errno;
		first = fd + 1;
	}
	if (first > last)
		return 0;
	return REAL(close_range)(first, last, flags) ? -errno : 0;
}
