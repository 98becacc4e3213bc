/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Secrets of this process: initial sequence numbers (RFC 6528), SYN cookies, the connection table's key, random numbers for lwIP. */
#ifndef LSTACK_ISN_H
#define LSTACK_ISN_H

#include <stddef.h>
#include <stdint.h>

/* Takes the secrets from the kernel. Once, before lwIP starts. 0 or -errno. */
int isn_open(void);

/* SipHash-2-4 of `len` bytes. Pure. */
uint64_t isn_siphash(const uint64_t key[2], const void *data, size_t len);

/* A 64-bit key nobody outside knows. After isn_open. */
uint64_t isn_table_key(void);

/* The key of SYN cookies (syncookie.h). After isn_open. */
const uint64_t *isn_cookie_key(void);

#endif
