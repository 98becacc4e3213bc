/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The right to serve a queue, <run_dir>/worker.<queue_id>.lock: held by a worker for the whole of its life, so that two
 * workers on one queue are impossible, however they are started. What a worker leaves to its successor (its page, its record of
 * connections, its side of the packet rings) is touched by the holder only.
 */
#ifndef LSTACK_QUEUE_LOCK_H
#define LSTACK_QUEUE_LOCK_H

#include <stdint.h>

/* Takes the lock until this process ends. 0, -EBUSY if another worker serves the queue, or -errno. */
int queue_lock(const char *run_dir, uint32_t queue_id);

#endif
