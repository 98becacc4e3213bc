/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The input of one execution, read as numbers from the front. What is not there reads as zero, so that every prefix of an input
 * is an input, and a byte more or less anywhere changes only what comes after it.
 */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct input {
	const uint8_t *at;
	size_t left;
};

static inline uint8_t take8(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->at++;
}

static inline uint16_t take16(struct input *in)
{
	uint16_t high = take8(in);

	return (uint16_t)(high << 8 | take8(in));
}

static inline uint32_t take32(struct input *in)
{
	uint32_t high = take16(in);

	return high << 16 | take16(in);
}

static inline uint64_t take64(struct input *in)
{
	uint64_t high = take32(in);

	return high << 32 | take32(in);
}

/* `bytes` of it; zeros behind its end. */
static inline void take_bytes(struct input *in, void *to, size_t bytes)
{
	uint8_t *out = to;

	for (size_t i = 0; i < bytes; i++)
		out[i] = take8(in);
}

/* A number as programs get wrong: small, or at an edge, or any. */
static inline uint32_t take_odd(struct input *in)
{
	static const uint32_t edges[] = { 0,     1,          0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe,
		                          65535, 65536,      4095,       4096,       4097,       255,
		                          256,   0x10000000, 0x7fffff00, 0xffff0000 };
	uint8_t how = take8(in);

	if (how < 128)
		return how;
	if (how < 192)
		return edges[how % 16];
	return how < 224 ? take16(in) : take32(in);
}

/* What must hold, whatever the input. */
#define MUST(what)                                                                                        \
	do {                                                                                              \
		if (!(what)) {                                                                            \
			fprintf(stderr, "BROKEN: %s (%s:%d, %s)\n", #what, __FILE__, __LINE__, __func__); \
			abort();                                                                          \
		}                                                                                         \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#endif
