/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Memory in files of the run directory. It is reserved before it is mapped: a file system that is full must be an error
 * of a start, and never a SIGBUS of the process that touches a page first. gazelled/pages/run_memory.py has the same sums.
 */
#ifndef LSTACK_RUN_MEMORY_H
#define LSTACK_RUN_MEMORY_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/types.h>

#define RINGS_HEADER_BYTES 4096u
#define RING_HEADER_BYTES 128u
#define RING_BYTES_MAX (1u << 20)          /* a full TCP window */
#define RING_BYTES_MIN (1u << 17)          /* a super-frame, and a second one while the first is read */
#define RINGS_OF_A_WORKER_BYTES (4u << 20) /* from all others together, as far as RING_BYTES_MIN allows */

/* Of the ring from one worker to another: a power of two that gets smaller as there are more of them. */
static inline uint32_t ring_bytes(uint32_t workers)
{
	uint32_t bytes = RING_BYTES_MAX;

	while (bytes > RING_BYTES_MIN && (uint64_t)bytes * (workers - 1) > RINGS_OF_A_WORKER_BYTES)
		bytes /= 2;
	return bytes;
}

/* Of the file of all rings. */
static inline uint64_t rings_bytes(uint32_t workers)
{
	return RINGS_HEADER_BYTES + (uint64_t)workers * (workers - 1) * (RING_HEADER_BYTES + ring_bytes(workers));
}

/* A worker's record of connections begins with room for so many, and grows by as many. */
#define FLOWS_STEP 4096u
#define FLOW_BYTES 44u

/* Makes sure that these bytes of a file are there; the file grows to hold them. 0 or -errno. */
static inline int reserve_file(int fd, uint64_t offset, uint64_t bytes)
{
	int err;

	do
		err = posix_fallocate(fd, (off_t)offset, (off_t)bytes);
	while (err == EINTR);
	return -err;
}

#endif
