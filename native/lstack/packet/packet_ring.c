/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "packet/packet_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gazelle/atomic.h>

#include "core/run_memory.h"

#define RINGS_MAGIC 0x73676e69727a67ull
#define RECORD_HEADER ((uint32_t)sizeof(struct packet_record))

_Static_assert(sizeof(struct packet_record) == 8, "records stay aligned");
_Static_assert(sizeof(struct packet_ring_indices) == RING_HEADER_BYTES, "as the sums of run_memory.h have it");

struct rings_header {
	uint64_t magic;
	uint32_t workers, ring_bytes;
};

struct packet_rings {
	uint8_t *base;
	size_t bytes;
	uint32_t workers, self;
	struct packet_ring *out, *in; /* by the other worker's number */
};

/* The file of exactly these rings, under the lock. One whose maker died before it wrote the header is made again. */
static int check_or_make(int fd, uint32_t workers, size_t bytes)
{
	struct rings_header header = { RINGS_MAGIC, workers, ring_bytes(workers) }, found = { 0 };
	struct stat st;
	int err;

	if (fstat(fd, &st) || pread(fd, &found, sizeof(found), 0) < 0)
		return -errno;
	if (!found.magic) {
		err = ftruncate(fd, 0) ? -errno : reserve_file(fd, 0, bytes);
		if (err)
			return err;
		return pwrite(fd, &header, sizeof(header), 0) == sizeof(header) ? 0 : -EIO;
	}
	return memcmp(&found, &header, sizeof(header)) || (size_t)st.st_size != bytes ? -EINVAL : 0;
}

static struct packet_ring view(const struct packet_rings *rings, uint32_t from, uint32_t to)
{
	size_t number = (size_t)from * (rings->workers - 1) + (to < from ? to : to - 1);
	uint32_t bytes = ring_bytes(rings->workers);
	uint8_t *p = rings->base + RINGS_HEADER_BYTES + number * (RING_HEADER_BYTES + bytes);

	return (struct packet_ring){ (struct packet_ring_indices *)p, p + RING_HEADER_BYTES, bytes };
}

int packet_rings_open(const char *run_dir, uint32_t workers, uint32_t self, struct packet_rings **out)
{
	struct packet_rings *rings = calloc(1, sizeof(*rings) + 2 * workers * sizeof(struct packet_ring));
	char path[160];
	int fd, err;

	if (!rings)
		return -ENOMEM;
	rings->workers = workers;
	rings->self = self;
	rings->out = (struct packet_ring *)(rings + 1);
	rings->in = rings->out + workers;
	rings->bytes = rings_bytes(workers);
	snprintf(path, sizeof(path), "%s/rings", run_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	err = -errno;
	if (fd < 0)
		goto err_free_rings;
	err = flock(fd, LOCK_EX) ? -errno : check_or_make(fd, workers, rings->bytes);
	if (err)
		goto err_close_fd;
	rings->base = mmap(NULL, rings->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	err = -errno;
	if (rings->base == MAP_FAILED)
		goto err_close_fd;
	(void)flock(fd, LOCK_UN); /* the mapping keeps the open file, and would keep the lock */
	close(fd);
	for (uint32_t q = 0; q < workers; q++) {
		if (q == self)
			continue;
		rings->out[q] = view(rings, self, q);
		rings->in[q] = view(rings, q, self);
		/* what waited for our predecessor is stale */
		gz_store_release(&rings->in[q].at->tail, gz_load_acquire(&rings->in[q].at->head));
	}
	*out = rings;
	return 0;

err_close_fd:
	close(fd);
err_free_rings:
	free(rings);
	return err;
}

void packet_rings_close(struct packet_rings *rings)
{
	munmap(rings->base, rings->bytes);
	free(rings);
}

struct packet_ring *packet_ring_of(struct packet_rings *rings, uint32_t from, uint32_t to)
{
	return from == rings->self ? &rings->out[to] : &rings->in[from];
}

static uint32_t record_bytes(uint32_t len)
{
	return RECORD_HEADER + ((len + 7u) & ~7u);
}

static void copy_in(struct packet_ring *ring, uint64_t at, const void *src, uint32_t len)
{
	uint32_t off = (uint32_t)at & (ring->bytes - 1), first = ring->bytes - off;

	first = first < len ? first : len;
	memcpy(ring->data + off, src, first);
	memcpy(ring->data, (const uint8_t *)src + first, len - first);
}

static void copy_out(const struct packet_ring *ring, uint64_t at, void *dst, uint32_t len)
{
	uint32_t off = (uint32_t)at & (ring->bytes - 1), first = ring->bytes - off;

	first = first < len ? first : len;
	memcpy(dst, ring->data + off, first);
	memcpy((uint8_t *)dst + first, ring->data, len - first);
}

bool packet_ring_has_room(struct packet_ring *ring, uint32_t len)
{
	/* acquire: the consumer has really read what it gave back */
	uint64_t used = gz_load(&ring->at->head) - gz_load_acquire(&ring->at->tail);

	return len <= PACKET_RING_RECORD_MAX && used + record_bytes(len) <= ring->bytes;
}

void packet_ring_put(struct packet_ring *ring, const struct packet_record *record, uint32_t off, const void *bytes,
                     uint32_t len)
{
	if (off + len <= record->len)
		copy_in(ring, gz_load(&ring->at->head) + RECORD_HEADER + off, bytes, len);
}

void packet_ring_commit(struct packet_ring *ring, const struct packet_record *record)
{
	copy_in(ring, gz_load(&ring->at->head), record, RECORD_HEADER);
	gz_store_release(&ring->at->head, gz_load(&ring->at->head) + record_bytes(record->len)); /* pairs with peek's acquire */
}

bool packet_ring_pending(const struct packet_ring *ring)
{
	return gz_load(&ring->at->head) != gz_load(&ring->at->tail);
}

bool packet_ring_peek(struct packet_ring *ring, struct packet_record *record, bool *broken)
{
	uint64_t tail = gz_load(&ring->at->tail), head = gz_load_acquire(&ring->at->head), used = head - tail;

	*broken = false;
	if (!used)
		return false;
	if (used <= ring->bytes && used >= RECORD_HEADER) {
		copy_out(ring, tail, record, RECORD_HEADER);
		if (record->len <= PACKET_RING_RECORD_MAX && record_bytes(record->len) <= used)
			return true;
	}
	*broken = true;
	gz_store_release(&ring->at->tail, head);
	return false;
}

void packet_ring_get(const struct packet_ring *ring, uint32_t off, void *bytes, uint32_t len)
{
	copy_out(ring, gz_load(&ring->at->tail) + RECORD_HEADER + off, bytes, len);
}

void packet_ring_drop(struct packet_ring *ring, const struct packet_record *record)
{
	gz_store_release(&ring->at->tail,
	                 gz_load(&ring->at->tail) + record_bytes(record->len)); /* pairs with has_room's acquire */
}
