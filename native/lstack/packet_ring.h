/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Packets between workers: for each ordered pair one ring of bytes with one producer and one consumer, all in one sparse
 * file <run_dir>/rings. Indices are free-running and each is written by one side only, so either side may die and come back
 * at any moment: a restarted producer goes on at its index, a restarted consumer starts at the producer's. A full ring drops.
 */
#ifndef LSTACK_PACKET_RING_H
#define LSTACK_PACKET_RING_H

#include <stdbool.h>
#include <stdint.h>

#include <gazelle/atomic.h>

#define PACKET_RING_BYTES (1u << 20) /* of one ring: a full TCP window; memory is used as far as it was ever filled */
#define PACKET_RING_RECORD_MAX 65600u

struct packet_ring {
	_Alignas(64) _Atomic uint64_t head; /* producer writes */
	_Alignas(64) _Atomic uint64_t tail; /* consumer writes */
	_Alignas(64) uint8_t data[PACKET_RING_BYTES];
};

/* What travels with a frame. */
struct packet_record {
	uint32_t len;    /* bytes of the frame, which follow, padded to 8 */
	uint8_t kind;    /* steer.c's business */
	uint8_t visits;  /* workers that have already looked */
	uint16_t origin; /* the worker whose port it came by */
};

struct packet_rings; /* the mapping of one process */

/* Maps the file, making it if we are the first. `workers` must be what it was made for. 0, or -errno. */
int packet_rings_open(const char *run_dir, uint32_t workers, uint32_t self, struct packet_rings **rings);
void packet_rings_close(struct packet_rings *rings);

/* Ring from worker `from` to worker `to`. */
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
