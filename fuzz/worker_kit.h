/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * A worker in this process: everything that `lstack` opens but the port, which is ours, and the clock, which the input sets.
 * Its memory of packets is poisoned where no packet is, so that AddressSanitizer sees who reads beyond a frame or after it.
 */
#ifndef FUZZ_WORKER_KIT_H
#define FUZZ_WORKER_KIT_H

#include <stdint.h>

#include "core/worker.h"

#define FRAME_MAX 65600u

struct worker {
	struct protocol_stack stack;
	struct gz_group_page *group;
	char dir[64];
	uint32_t mbufs; /* free ones, with nothing going on */
	uint32_t files; /* descriptors of this process, likewise */
	/* The frame that was sent last, and who wants to see each. */
	uint8_t sent[FRAME_MAX];
	uint32_t sent_bytes;
	void (*on_sent)(const uint8_t *frame, uint32_t bytes);
};

extern struct worker worker;
extern const uint8_t worker_addr6[16]; /* fd00:91::2; the IPv4 address is 10.0.0.2 */

/* Once, from LLVMFuzzerInitialize; in a network namespace of our own, if we may. Ends the process if something fails. */
void worker_begin(const char *program);

/* One turn, `ns` later than the last. */
void worker_turn(uint64_t ns);

/* A frame comes in, in mbufs of at most `piece` bytes (0: as the tap would); no turn. */
void worker_frame(const uint8_t *frame, uint32_t bytes, uint32_t piece);

/*
 * The end of an execution: every process has left. Resets what connections there still are, lets time pass, and sees that
 * nothing is left behind: no mbuf, no socket, no arena, no charge on anybody's account, no descriptor.
 */
void worker_settle(void);

#endif
