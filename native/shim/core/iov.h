/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A place in an iovec, and copies between it and a FIFO's block. */
#ifndef SHIM_IOV_H
#define SHIM_IOV_H

#include <errno.h>
#include <limits.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <gazelle/fifo.h>

struct iov {
	const struct iovec *at;
	size_t off;
};

/* Starts at the beginning. Total bytes, or -EINVAL as the kernel checks it. */
static inline ssize_t iov_begin(struct iov *iov, const struct iovec *vec, int count)
{
	size_t total = 0;

	iov->at = vec;
	iov->off = 0;
	if (count < 0 || count > IOV_MAX)
		return -EINVAL;
	for (int i = 0; i < count; i++) {
		if (vec[i].iov_len > SSIZE_MAX - total)
			return -EINVAL;
		total += vec[i].iov_len;
	}
	/* The kernel moves at most this much in one call. */
	return total < 0x7ffff000u ? (ssize_t)total : 0x7ffff000;
}

/* The next run of bytes, at most `most`; the caller knows there are some. */
static inline size_t iov_run(struct iov *iov, size_t most, char **p)
{
	while (iov->off == iov->at->iov_len) {
		iov->at++;
		iov->off = 0;
	}
	size_t run = iov->at->iov_len - iov->off;
	*p = (char *)iov->at->iov_base + iov->off;
	run = run < most ? run : most;
	iov->off += run;
	return run;
}

static inline void iov_skip(struct iov *iov, size_t len)
{
	char *p;

	while (len)
		len -= iov_run(iov, len, &p);
}

static inline void iov_copy_out(struct iov *iov, const uint8_t *block, uint32_t size, uint32_t base, uint32_t from,
                                uint32_t len)
{
	while (len) {
		char *p;
		uint32_t run = (uint32_t)iov_run(iov, len, &p);

		gz_fifo_copy_out(block, size, base, from, p, run);
		from += run;
		len -= run;
	}
}

static inline void iov_copy_in(struct iov *iov, uint8_t *block, uint32_t size, uint32_t base, uint32_t to, uint32_t len)
{
	while (len) {
		char *p;
		uint32_t run = (uint32_t)iov_run(iov, len, &p);

		gz_fifo_copy_in(block, size, base, to, p, run);
		to += run;
		len -= run;
	}
}

#endif
