/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What lwIP needs of compiler and platform, beyond its own defaults for GNU C. */
#ifndef LSTACK_LWIP_CC_H
#define LSTACK_LWIP_CC_H

#include <stddef.h>
#include <stdint.h>

#define LWIP_TIMEVAL_PRIVATE 0
#include <sys/time.h>

/* heap.c: free lists by size. NULL when the worker's limit is reached. */
void *lwip_heap_alloc(size_t size);
void *lwip_heap_calloc(size_t count, size_t size);
void lwip_heap_free(void *p);

/* checksum.c: the folded one's-complement sum of `len` bytes, not inverted. */
uint16_t lwip_checksum(const void *data, int len);

/* log.c: an impossible state. It is counted and logged, and the worker goes on: nothing a peer sends may end it. */
void lwip_assert_failed(const char *what, const char *file, int line);

uint32_t lwip_random(void);

#define LWIP_PLATFORM_DIAG(x) ((void)0)
#define LWIP_PLATFORM_ASSERT(x) lwip_assert_failed(x, __FILE__, __LINE__)
#define LWIP_RAND() lwip_random()
#define LWIP_NO_CTYPE_H 0

#endif
