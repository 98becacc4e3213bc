/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "net/uplink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <lwip/priv/tcp_priv.h>

#include <gazelle/atomic.h>
#include <gazelle/uplink.h>

#include "core/worker.h"

#define OWNERS_BYTES (GZ_UPLINK_PORTS * sizeof(uint64_t))

/* lwIP tells of a freed pcb without a context of ours: this is the module's single state. */
static struct {
	_Atomic uint64_t *owners; /* map gz_owners; NULL: no uplink */
	uint32_t *count;          /* our sockets on each port */
	uint64_t bit;             /* ours in an owners' word */
	uint8_t ext_arg;          /* 1 + lwIP's number */
} uplink;

static int bpf(int command, union bpf_attr *attr)
{
	long got = syscall(SYS_bpf, command, attr, sizeof(*attr));

	return got < 0 ? -errno : (int)got;
}

static int map_by_id(uint32_t id)
{
	union bpf_attr attr = { .map_id = id };

	return bpf(BPF_MAP_GET_FD_BY_ID, &attr);
}

static uint32_t port_index(uint8_t protocol, uint16_t port)
{
	return port + (protocol == IPPROTO_UDP ? GZ_UPLINK_PORTS / 2 : 0);
}

void uplink_hold(uint8_t protocol, uint16_t port)
{
	uint32_t i = port_index(protocol, port);

	/* Other workers change their bits of the same word. */
	if (uplink.owners && !uplink.count[i]++)
		(void)gz_or(&uplink.owners[i], uplink.bit);
}

void uplink_release(uint8_t protocol, uint16_t port)
{
	uint32_t i = port_index(protocol, port);

	if (uplink.owners && uplink.count[i] && !--uplink.count[i])
		(void)gz_and(&uplink.owners[i], ~uplink.bit);
}

static void on_destroy(u8_t id, void *data)
{
	(void)id;
	if (data)
		uplink_release(IPPROTO_TCP, (uint16_t)(uintptr_t)data);
}

void uplink_hold_pcb(struct tcp_pcb *pcb)
{
	static const struct tcp_ext_arg_callbacks callbacks = { .destroy = on_destroy };

	if (!uplink.owners)
		return;
	if (!uplink.ext_arg)
		uplink.ext_arg = (uint8_t)(tcp_ext_arg_alloc_id() + 1);
	tcp_ext_arg_set_callbacks(pcb, uplink.ext_arg - 1, &callbacks);
	tcp_ext_arg_set(pcb, uplink.ext_arg - 1, (void *)(uintptr_t)pcb->local_port);
	uplink_hold(IPPROTO_TCP, pcb->local_port);
}

int uplink_open(struct protocol_stack *stack)
{
	void *owners;
	int fd, err;

	if (!uplink_is_on(stack->group))
		return 0;
	fd = map_by_id(stack->group->uplink_owners);
	if (fd < 0)
		return fd;
	owners = mmap(NULL, OWNERS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	err = owners == MAP_FAILED ? -errno : 0;
	close(fd);
	if (err)
		return err;
	uplink.count = calloc(GZ_UPLINK_PORTS, sizeof(*uplink.count));
	if (!uplink.count)
		return -ENOMEM;
	uplink.owners = owners;
	uplink.bit = 1ull << stack->queue_id;
	/* Whatever a worker before us has left set. */
	for (uint32_t i = 0; i < GZ_UPLINK_PORTS; i++)
		if (gz_load(&uplink.owners[i]) & uplink.bit)
			(void)gz_and(&uplink.owners[i], ~uplink.bit);
	return 0;
}

/* The kernel takes no socket into such a map that is not connected: one that is connected to itself. */
static int open_token(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err;
	socklen_t len = sizeof(at);

	if (fd < 0)
		return -errno;
	if (!bind(fd, (struct sockaddr *)&at, len) && !getsockname(fd, (struct sockaddr *)&at, &len) &&
	    !connect(fd, (struct sockaddr *)&at, len))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

int uplink_announce(struct protocol_stack *stack)
{
	uint32_t key = stack->queue_id;
	union bpf_attr attr = { 0 };
	int map, token, err;

	if (!uplink.owners)
		return 0;
	map = map_by_id(stack->group->uplink_alive);
	if (map < 0)
		return map;
	token = open_token(); /* stays open: its end is ours */
	err = token;
	if (token < 0)
		goto out;
	attr.map_fd = (uint32_t)map;
	attr.key = (uintptr_t)&key;
	attr.value = (uintptr_t)&token;
	err = bpf(BPF_MAP_UPDATE_ELEM, &attr);
out:
	close(map);
	return err < 0 ? err : 0;
}
