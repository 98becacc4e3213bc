/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "core/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/real.h"

void *mapping_of(int fd, size_t size, int prot, void *at)
{
	struct stat st;

	if (fd >= 0 && (fstat(fd, &st) || (uint64_t)st.st_size < size)) {
		errno = EPROTO;
		return NULL;
	}
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *p = mmap(at, size, prot, flags | MAP_NORESERVE | (at ? MAP_FIXED : 0), fd, 0);
	if (p == MAP_FAILED)
		return NULL;
	(void)madvise(p, size, MADV_DONTDUMP); /* a core would be as large as all of it */
	return p;
}

void *mapping_sealed(int fd, size_t size, void *at)
{
	int seals = REAL(fcntl)(fd, F_GET_SEALS);

	if (seals < 0 || !(seals & F_SEAL_SHRINK)) {
		errno = EPROTO;
		return NULL;
	}
	return mapping_of(fd, size, PROT_READ | PROT_WRITE, at);
}
