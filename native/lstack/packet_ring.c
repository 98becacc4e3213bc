/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "packet_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define RINGS_MAGIC 0x73676e69727a67ull
#define HEADER_BYTES 4096u
#define RECORD_HEADER ((uint32_t)sizeof(struct packet_record))

_Static_assert(sizeof(struct packet_record) == 8, "records stay aligned");

struct rings_header {
	uint64_t magic;
	uint32_t workers, ring_bytes;
};

struct packet_rings {
	uint8_t *base;
	size_t bytes;
	uint32_t workers;
};

/* The file of exactly these rings, under the lock. */
static int check_or_make(int fd, uint32_t workers, size_t bytes)
{
	struct rings_header header = { RINGS_MAGIC, workers, PACKET_RING_BYTES }, found;
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (st.st_size == 0) {
		if (ftruncate(fd, (off_t)bytes))
			return -errno;
		return pwrite(fd, &header, sizeof(header), 0) == sizeof(header) ? 0 : -EIO;
	}
	if (pread(fd, &found, sizeof(found), 0) != sizeof(found) || memcmp(&found, &header, sizeof(header)) ||
	    (size_t)st.st_size != bytes)
		return -EINVAL;
	return 0;
}

int packet_rings_open(const char *run_dir, uint32_t workers, uint32_t self, struct packet_rings **out)
{
	struct packet_rings *rings = calloc(1, sizeof(*rings));
	char path[160];
	int fd, err;

	if (!rings)
		return -ENOMEM;
	rings->workers = workers;
	rings->bytes = HEADER_BYTES + (size_t)workers * workers * sizeof(struct packet_ring);
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
		struct packet_ring *ring = packet_ring_of(rings, q, self);

		if (q != self) /* what waited for our predecessor is stale */
			gz_store_release(&ring->tail, gz_load_acquire(&ring->head));
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
	return (struct packet_ring *)(rings->base + HEADER_BYTES) + (size_t)from * rings->workers + to;
}

static uint32_t record_bytes(uint32_t len)
{
	return RECORD_HEADER + ((len + 7u) & ~7u);
}

static void copy_in(struct packet_ring *ring, uint64_t at, const void *src, uint32_t len)
{
	uint32_t off = (uint32_t)(at % PACKET_RING_BYTES), first = PACKET_RING_BYTES - off;

	first = first < len ? first : len;
	memcpy(ring->data + off, src, first);
	memcpy(ring->data, (const uint8_t *)src + first, len - first);
}

static void copy_out(const struct packet_ring *ring, uint64_t at, void *dst, uint32_t len)
{
	uint32_t off = (uint32_t)(at % PACKET_RING_BYTES), first = PACKET_RING_BYTES - off;

	first = first < len ? first : len;
	memcpy(dst, ring->data + off, first);
	memcpy((uint8_t *)dst + first, ring->data, len - first);
}

bool packet_ring_has_room(struct packet_ring *ring, uint32_t len)
{
	/* acquire: the consumer has really read what it gave back */
	uint64_t used = gz_load(&ring->head) - gz_load_acquire(&ring->tail);

	return len <= PACKET_RING_RECORD_MAX && used + record_bytes(len) <= PACKET_RING_BYTES;
}

void packet_ring_put(struct packet_ring *ring, const struct packet_record *record, uint32_t off, const void *bytes,
                     uint32_t len)
{
	if (off + len <= record->len)
		copy_in(ring, gz_load(&ring->head) + RECORD_HEADER + off, bytes, len);
}

void packet_ring_commit(struct packet_ring *ring, const struct packet_record *record)
{
	copy_in(ring, gz_load(&ring->head), record, RECORD_HEADER);
	gz_store_release(&ring->head, gz_load(&ring->head) + record_bytes(record->len)); /* pairs with peek's acquire */
}

bool packet_ring_pending(const struct packet_ring *ring)
{
	return gz_load(&ring->head) != gz_load(&ring->tail);
}

bool packet_ring_peek(struct packet_ring *ring, struct packet_record *record, bool *broken)
{
	uint64_t tail = gz_load(&ring->tail), head = gz_load_acquire(&ring->head), used = head - tail;

	*broken = false;
	if (!used)
		return false;
	if (used <= PACKET_RING_BYTES && used >= RECORD_HEADER) {
		copy_out(ring, tail, record, RECORD_HEADER);
		if (record->len <= PACKET_RING_RECORD_MAX && record_bytes(record->len) <= used)
			return true;
	}
	*broken = true;
	gz_store_release(&ring->tail, head);
	return false;
}

void packet_ring_get(const struct packet_ring *ring, uint32_t off, void *bytes, uint32_t len)
{
	copy_out(ring, gz_load(&ring->tail) + RECORD_HEADER + off, bytes, len);
}

void packet_ring_drop(struct packet_ring *ring, const struct packet_record *record)
{
	gz_store_release(&ring->tail, gz_load(&ring->tail) + record_bytes(record->len)); /* pairs with has_room's acquire */
}
