/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "shared/abi_dump.h"

#include <stddef.h>
#include <stdio.h>

#include <gazelle/abi.h>
#include <gazelle/connections.h>
#include <gazelle/control.h>
#include <gazelle/explain.h>
#include <gazelle/group_page.h>
#include <gazelle/histogram.h>
#include <gazelle/same_host.h>
#include <gazelle/worker_page.h>

#include "core/run_memory.h"

#define FIELD(type, field)                           \
	{                                            \
#field, offsetof(struct type, field) \
	}
#define STRUCT(type, ...)                   \
	{                                   \
#type, sizeof(struct type), \
		{                           \
			__VA_ARGS__         \
		}                           \
	}

static const struct {
	const char *name;
	size_t size;
	struct {
		const char *name;
		size_t offset;
	} field[48]; /* ends at the first without a name */
} structs[] = {
	STRUCT(gz_worker_plan, FIELD(gz_worker_plan, queue_id), FIELD(gz_worker_plan, process_index),
	       FIELD(gz_worker_plan, index), FIELD(gz_worker_plan, role), FIELD(gz_worker_plan, cpu),
	       FIELD(gz_worker_plan, numa), FIELD(gz_worker_plan, mbufs), FIELD(gz_worker_plan, rx_queue_size),
	       FIELD(gz_worker_plan, tx_queue_size), FIELD(gz_worker_plan, name), FIELD(gz_worker_plan, comm),
	       FIELD(gz_worker_plan, pool), FIELD(gz_worker_plan, port_args)),
	STRUCT(gz_group_page, FIELD(gz_group_page, magic), FIELD(gz_group_page, abi_version),
	       FIELD(gz_group_page, size), FIELD(gz_group_page, process_index), FIELD(gz_group_page, num_queue),
	       FIELD(gz_group_page, tot_queue_num), FIELD(gz_group_page, split), FIELD(gz_group_page, driver),
	       FIELD(gz_group_page, idle), FIELD(gz_group_page, spin_us), FIELD(gz_group_page, mtu),
	       FIELD(gz_group_page, nic_read_number), FIELD(gz_group_page, rpc_number),
	       FIELD(gz_group_page, read_connect_number), FIELD(gz_group_page, trust_rx_checksum),
	       FIELD(gz_group_page, host_addr_be), FIELD(gz_group_page, netmask_be), FIELD(gz_group_page, gateway_be),
	       FIELD(gz_group_page, host_peer_be), FIELD(gz_group_page, mac), FIELD(gz_group_page, pad0),
	       FIELD(gz_group_page, host_addr6), FIELD(gz_group_page, gateway6), FIELD(gz_group_page, host_peer6),
	       FIELD(gz_group_page, run_uid), FIELD(gz_group_page, run_gid), FIELD(gz_group_page, uplink_owners),
	       FIELD(gz_group_page, uplink_alive), FIELD(gz_group_page, uplink_ifindex), FIELD(gz_group_page, pad1),
	       FIELD(gz_group_page, own), FIELD(gz_group_page, instance), FIELD(gz_group_page, device),
	       FIELD(gz_group_page, run_dir), FIELD(gz_group_page, rss_key), FIELD(gz_group_page, reta),
	       FIELD(gz_group_page, allow_everybody), FIELD(gz_group_page, allow_uid_count),
	       FIELD(gz_group_page, allow_gid_count), FIELD(gz_group_page, allow_uids), FIELD(gz_group_page, allow_gids),
	       FIELD(gz_group_page, foreign_listen), FIELD(gz_group_page, file_gid), FIELD(gz_group_page, workers)),
	STRUCT(gz_listener, FIELD(gz_listener, port_owner), FIELD(gz_listener, v6only), FIELD(gz_listener, addr),
	       FIELD(gz_listener, backlog), FIELD(gz_listener, program), FIELD(gz_listener, netns)),
	STRUCT(gz_app_stat, FIELD(gz_app_stat, pid), FIELD(gz_app_stat, sockets), FIELD(gz_app_stat, arena_kb),
	       FIELD(gz_app_stat, paired), FIELD(gz_app_stat, kernel)),
	STRUCT(gz_explain, FIELD(gz_explain, accelerated), FIELD(gz_explain, kernel), FIELD(gz_explain, refused),
	       FIELD(gz_explain, why)),
	STRUCT(gz_message, FIELD(gz_message, magic), FIELD(gz_message, abi_version), FIELD(gz_message, kind),
	       FIELD(gz_message, number), FIELD(gz_message, status), FIELD(gz_message, cursor), FIELD(gz_message, text)),
	STRUCT(gz_connection, FIELD(gz_connection, kind), FIELD(gz_connection, state), FIELD(gz_connection, flags),
	       FIELD(gz_connection, v6), FIELD(gz_connection, local_port), FIELD(gz_connection, peer_port),
	       FIELD(gz_connection, local_addr), FIELD(gz_connection, peer_addr), FIELD(gz_connection, pid),
	       FIELD(gz_connection, uid), FIELD(gz_connection, rx_queued), FIELD(gz_connection, rx_room),
	       FIELD(gz_connection, tx_queued), FIELD(gz_connection, tx_room), FIELD(gz_connection, send_window),
	       FIELD(gz_connection, receive_window), FIELD(gz_connection, congestion_window),
	       FIELD(gz_connection, slow_start_threshold), FIELD(gz_connection, mss), FIELD(gz_connection, rtt_us),
	       FIELD(gz_connection, rto_ms), FIELD(gz_connection, segments_in), FIELD(gz_connection, segments_out),
	       FIELD(gz_connection, retransmits), FIELD(gz_connection, bytes_received),
	       FIELD(gz_connection, bytes_acked), FIELD(gz_connection, age_ms), FIELD(gz_connection, idle_ms)),
	STRUCT(gz_pair, FIELD(gz_pair, magic), FIELD(gz_pair, abi_version), FIELD(gz_pair, side), FIELD(gz_pair, sock)),
	STRUCT(gz_pair_side, FIELD(gz_pair_side, pid), FIELD(gz_pair_side, holds)),
	STRUCT(gz_pair_sock, FIELD(gz_pair_sock, end), FIELD(gz_pair_sock, view)),
	STRUCT(gz_worker_page, FIELD(gz_worker_page, magic), FIELD(gz_worker_page, abi_version), FIELD(gz_worker_page, size),
	       FIELD(gz_worker_page, pid), FIELD(gz_worker_page, state), FIELD(gz_worker_page, heartbeat_ns),
	       FIELD(gz_worker_page, generation), FIELD(gz_worker_page, mac), FIELD(gz_worker_page, pad0),
	       FIELD(gz_worker_page, asleep), FIELD(gz_worker_page, apps_end), FIELD(gz_worker_page, counters),
	       FIELD(gz_worker_page, listeners), FIELD(gz_worker_page, apps), FIELD(gz_worker_page, latency)),
	STRUCT(gz_histogram, FIELD(gz_histogram, count), FIELD(gz_histogram, max_ns), FIELD(gz_histogram, bucket)),
};

static const char *const counters[][4] = {
#define X(name, unit, kind, meaning) { #name, unit, #kind, meaning },
	GZ_COUNTERS(X)
#undef X
};

void abi_dump(void)
{
	printf("{\"abi_version\": %u, \"structs\": {", GZ_ABI_VERSION);
	for (size_t i = 0; i < sizeof(structs) / sizeof(structs[0]); i++) {
		printf("%s\"%s\": {\"size\": %zu, \"fields\": {", i ? ", " : "", structs[i].name, structs[i].size);
		for (size_t k = 0; structs[i].field[k].name; k++)
			printf("%s\"%s\": %zu", k ? ", " : "", structs[i].field[k].name, structs[i].field[k].offset);
		printf("}}");
	}
	printf("}, \"counters\": [");
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		printf("%s[\"%s\", \"%s\", \"%s\", \"%s\"]", i ? ", " : "", counters[i][0], counters[i][1],
		       counters[i][2], counters[i][3]);
	printf("], \"rings_bytes\": [");
	for (uint32_t workers = 1; workers <= GZ_WORKERS_MAX; workers++)
		printf("%s%ju", workers > 1 ? ", " : "", (uintmax_t)rings_bytes(workers));
	printf("], \"flows_bytes\": %u}\n", FLOWS_STEP * FLOW_BYTES);
}
