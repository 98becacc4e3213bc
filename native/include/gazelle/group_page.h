/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The group page: one per gazelle process, what the plan fixes. The supervisor writes it once, before the first worker
 * starts, and the table of addresses as they come and go; it is read-only to all others.
 */
#ifndef GAZELLE_GROUP_PAGE_H
#define GAZELLE_GROUP_PAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <gazelle/atomic.h>

#define GZ_GROUP_MAGIC 0x70756f7267617a67ull /* "gzagroup" */
#define GZ_WORKERS_MAX 128u                  /* workers of one instance: all processes together */
#define GZ_RETA_SIZE 128u
#define GZ_RSS_KEY_SIZE 40u
#define GZ_ALLOWED_MAX 32u /* users, and groups, who may attach */
#define GZ_NO_ID UINT32_MAX
#define GZ_OWN_MAX 32u /* addresses of the stack */

enum gz_role { GZ_ROLE_BOTH = 0, GZ_ROLE_RECV = 1, GZ_ROLE_SEND = 2 };
enum gz_driver { GZ_DRIVER_TAP = 0, GZ_DRIVER_ETHDEV = 1, GZ_DRIVER_NONE = 2 };
enum gz_idle { GZ_IDLE_ADAPTIVE = 0, GZ_IDLE_POLL = 1 };

/* What the plan says of one worker. Indexed by queue_id; the workers of all processes, so that packets find their way. */
struct gz_worker_plan {
	uint32_t queue_id;
	uint32_t process_index;
	uint32_t index; /* within the process */
	uint32_t role;  /* enum gz_role */
	int32_t cpu;    /* -1: not bound */
	int32_t numa;   /* -1: unknown */
	uint32_t mbufs; /* elements of its mempool */
	uint32_t rx_queue_size;
	uint32_t tx_queue_size;
	char name[32];       /* full name, argv[0] */
	char comm[16];       /* unique form of at most 15 bytes */
	char pool[32];       /* mempool name */
	char port_args[224]; /* ethdev: EAL arguments of the port, separated by spaces ("--vdev=net_af_xdp0,iface=..") */
};
_Static_assert(sizeof(struct gz_worker_plan) == 340, "supervisor packs this");

struct gz_group_page {
	uint64_t magic;
	uint32_t abi_version;
	uint32_t size; /* sizeof(struct gz_group_page) */
	uint32_t process_index;
	uint32_t num_queue;     /* workers of this process */
	uint32_t tot_queue_num; /* workers of the instance */
	uint32_t split;         /* 1: separate send/recv */
	uint32_t driver;        /* enum gz_driver */
	uint32_t idle;          /* enum gz_idle */
	uint32_t spin_us;       /* how long a worker and an application look before they sleep */
	uint32_t mtu;
	uint32_t nic_read_number;     /* rx burst per turn */
	uint32_t rpc_number;          /* requests of one application per turn */
	uint32_t read_connect_number; /* rung sockets of one application per turn, in units of 64 */
	uint32_t trust_rx_checksum;   /* 1: peers are local kernels with partial checksums (veth) */
	uint32_t host_addr_be;        /* the stack's IPv4 address */
	uint32_t netmask_be;
	uint32_t gateway_be;   /* 0: none; then only the subnet is reached through the stack */
	uint32_t host_peer_be; /* tap: address of the host's side; 0 otherwise */
	uint8_t mac[6];        /* the stack's hardware address; zero: take the device's */
	uint8_t pad0[2];
	uint8_t host_addr6[16];    /* the stack's IPv6 address, in a subnet of /64; zero: none */
	uint8_t gateway6[16];      /* zero: none */
	uint8_t host_peer6[16];    /* tap: address of the host's side; zero otherwise */
	uint32_t run_uid, run_gid; /* whom workers become once their port is open; 0: stay */
	/*
	 * Beside the kernel: ids of the BPF maps gz_owners and gz_alive (uplink.h); 0: no uplink. host_addr and host_addr6 are
	 * then the machine's own, and routes and neighbours are the kernel's.
	 */
	uint32_t uplink_owners, uplink_alive;
	uint32_t uplink_ifindex; /* the interface, which is what link-local addresses are of; 0: no uplink */
	uint32_t pad1;
	/*
	 * Every address of the stack, IPv4 mapped; zero: an empty slot. Without an uplink host_addr and host_addr6. A slot is
	 * either empty or has one address, so what a reader sees of one that is just being written is no address at all.
	 */
	_Atomic uint64_t own[GZ_OWN_MAX][2];
	char instance[32];
	char device[16];   /* tap or netdev name */
	char run_dir[108]; /* worker.<queue_id>.sock, .page, .wake; rings */
	uint8_t rss_key[GZ_RSS_KEY_SIZE];
	uint16_t reta[GZ_RETA_SIZE]; /* hash & (GZ_RETA_SIZE-1) -> queue_id; with the split: -> 2*pair */
	uint32_t allow_everybody;    /* 1: any local user may attach; else root, and: */
	uint32_t allow_uid_count, allow_gid_count;
	uint32_t allow_uids[GZ_ALLOWED_MAX];
	uint32_t allow_gids[GZ_ALLOWED_MAX]; /* their members may attach, also those by a supplementary group */
	uint32_t foreign_listen; /* 1: programs of another network namespace may own ports, not only connect */
	uint32_t file_gid; /* whose the files in run_dir are, and for no others; GZ_NO_ID: for all who get into run_dir */
	struct gz_worker_plan workers[GZ_WORKERS_MAX];
};

/* The slot of an address of the stack, counted from 1; 0: it is none. */
static inline uint8_t gz_own_find(const struct gz_group_page *group, const uint8_t addr[16])
{
	uint64_t word[2];

	memcpy(word, addr, sizeof(word));
	for (uint32_t i = 0; i < GZ_OWN_MAX && (word[0] || word[1]); i++)
		if (gz_load(&group->own[i][1]) == word[1] && gz_load(&group->own[i][0]) == word[0])
			return (uint8_t)(i + 1);
	return 0;
}

/* The address in a slot counted from 1. False: there is none. */
static inline bool gz_own_read(const struct gz_group_page *group, uint8_t slot, uint8_t addr[16])
{
	uint64_t word[2];

	if (!slot || slot > GZ_OWN_MAX)
		return false;
	for (uint32_t i = 0; i < 2; i++)
		word[i] = gz_load(&group->own[slot - 1][i]);
	memcpy(addr, word, sizeof(word));
	return word[0] || word[1];
}

#endif
