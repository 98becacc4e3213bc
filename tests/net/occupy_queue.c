/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Holds one queue of a network device by an AF_XDP socket, so that nobody else can open it. Attaches no XDP program.
 *   occupy_queue DEVICE QUEUE
 */
#include <err.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAMES 64
#define FRAME_SIZE 4096

int main(int argc, char **argv)
{
	struct xdp_umem_reg umem = { .len = FRAMES * FRAME_SIZE, .chunk_size = FRAME_SIZE };
	struct sockaddr_xdp addr = { .sxdp_family = AF_XDP, .sxdp_flags = XDP_COPY };
	int ring = FRAMES, fd;
	void *frames;

	if (argc != 3)
		errx(64, "usage: occupy_queue DEVICE QUEUE");
	frames = mmap(NULL, umem.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (frames == MAP_FAILED)
		err(71, "mmap");
	umem.addr = (uintptr_t)frames;
	addr.sxdp_ifindex = if_nametoindex(argv[1]);
	addr.sxdp_queue_id = (uint32_t)atoi(argv[2]);
	fd = socket(AF_XDP, SOCK_RAW, 0);
	if (fd < 0)
		err(71, "socket");
	if (setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof(umem)) ||
	    setsockopt(fd, SOL_XDP, XDP_UMEM_FILL_RING, &ring, sizeof(ring)) ||
	    setsockopt(fd, SOL_XDP, XDP_UMEM_COMPLETION_RING, &ring, sizeof(ring)) ||
	    setsockopt(fd, SOL_XDP, XDP_RX_RING, &ring, sizeof(ring)))
		err(71, "setsockopt");
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		err(71, "bind");
	puts("held");
	fflush(stdout);
	for (;;)
		pause();
}
