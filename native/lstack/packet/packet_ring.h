/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Packets between workers: for each ordered pair one ring of bytes with one producer and one consumer, all in one file
 * <run_dir>/rings. Indices are free-running and each is written by one side only, so either side may die and come back at
 * any moment: a restarted producer goes on at its index, a restarted consumer starts at the producer's. A full ring drops.
 */
#ifndef LSTACK_PACKET_RING_H
#define LSTACK_PACKET_RING_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/atomic.h>

#define PACKET_RING_RECORD_MAX 65600u

/* In the file; as many bytes as run_memory.h says follow. */
struct packet_ring_indices {
	_Alignas(64) _Atomic uint64_t head; /* producer writes */
	_Alignas(64) _Atomic uint64_t tail; /* consumer writes */
};

/* One side's view of a ring. */
struct packet_ring {
	struct packet_ring_indices *at;
	uint8_t *data;
	uint32_t bytes; /* a power of two; ours, whatever the file says */
};

/* What travels with a frame. */
struct packet_record {
	uint32_t len;    /* bytes of the frame, which follow, padded to 8 */
	uint8_t kind;    /* steer.c's business */
	uint8_t visits;  /* workers that have already looked */
	uint16_t origin; /* the worker whose port it came by */
};

struct packet_rings; /* the mapping of one process */

/* Maps the file, making it if we are the first; all its memory is there then. `workers` must be what it was made for. 0, or
 * -errno. */
int packet_rings_open(const char *run_dir, uint32_t workers, uint32_t self, struct packet_rings **rings);
void packet_rings_close(struct packet_rings *rings);

/* Ring from worker `from` to worker `to`; one of them is `self`, the other is not. */
struct packet_ring *packet_ring_of(struct packet_rings *rings, uint32_t from, uint32_t to);

/*
 * Producer: room for a record, or false. Then any number of packet_ring_put at increasing offsets, then packet_ring_commit,
 * which publishes it.
 */
bool packet_ring_has_room(struct packet_ring *ring, uint32_t len);
void packet_ring_put(struct packet_ring *ring, const struct packet_record *record, uint32_t off, const void *bytes,
                     uint32_t len);
void packet_ring_commit(struct packet_ring *ring, const struct packet_record *record);

/* Consumer: true if anything waits. */
bool packet_ring_pending(const struct packet_ring *ring);

/* Consumer: the next record's header, checked; false: none, or nonsense, and then the ring was emptied (*broken). */
bool packet_ring_peek(struct packet_ring *ring, struct packet_record *record, bool *broken);
/* Consumer: copies out bytes of the peeked record; then packet_ring_drop gives the room back. */
void packet_ring_get(const struct packet_ring *ring, uint32_t off, void *bytes, uint32_t len);
void packet_ring_drop(struct packet_ring *ring, const struct packet_record *record);

#endif
