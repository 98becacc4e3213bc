/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * uplinkctl: what the supervisor does with the tc programs of uplink.bpf.c. It loads and attaches them, finds them again by the
 * interface they are attached to, and reads and writes their maps; nothing is pinned, so nothing of them outlives them.
 *
 *   uplinkctl method UPLINK                      prints tcx or clsact: whether a program needs that queueing discipline there
 *   uplinkctl attach OBJECT UPLINK TAP WORKERS   prints the ids of the maps that workers need, as JSON
 *   uplinkctl detach UPLINK TAP                  fine if they are not attached, or if an interface is gone
 *   uplinkctl show UPLINK                        prints struct gz_uplink_state and the addresses, as JSON
 *   uplinkctl addresses UPLINK [ADDRESS]...      these addresses are the stack's as well, and no others
 *   uplinkctl ports UPLINK                       prints the TCP ports with an owner, as JSON
 *   uplinkctl settle UPLINK                      the kernel has no connection on a port of the stack any more
 * Exit status: 0, 1 (with one line on stderr), 3: nothing of ours is attached there, 64: wrong arguments.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <gazelle/uplink.h>

/* Where among an interface's classic programs ours is: late, so that those who drop packets have done so before. */
#define PRIORITY 26490
#define HANDLE 1
#define TCX_INGRESS ((enum bpf_attach_type)46) /* BPF_TCX_INGRESS, which headers before Linux 6.6 lack */

enum { FAILED = 1, ABSENT = 3, USAGE = 64 };

/* Why the kernel refuses a program is worth reading; that nothing is attached somewhere is our own to say. */
static int print_refusal(enum libbpf_print_level level, const char *format, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, args) : 0;
}

static int print_nothing(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

static int fail(const char *what, int err)
{
	fprintf(stderr, "%s: %s\n", what, strerror(err < 0 ? -err : err));
	return FAILED;
}

/* ------------------------------------------------------------------ programs */

/* True on kernels that attach programs to an interface without a queueing discipline (6.6). */
static bool has_tcx(int ifindex)
{
	__u32 flags, count = 0;

	return !bpf_prog_query(ifindex, TCX_INGRESS, 0, &flags, NULL, &count);
}

/* The file descriptor of a program if it has this name, or -1. */
static int open_named(__u32 id, const char *name)
{
	struct bpf_prog_info info = { 0 };
	__u32 size = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id);

	if (fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &size) && !strcmp(info.name, name))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The file descriptor of our program at an interface, or -1. */
static int program_at(int ifindex, const char *name)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = HANDLE, .priority = PRIORITY);
	__u32 ids[64], flags, count = 64;

	if (!ifindex)
		return -1;
	if (!has_tcx(ifindex))
		return bpf_tc_query(&hook, &opts) ? -1 : open_named(opts.prog_id, name);
	if (bpf_prog_query(ifindex, TCX_INGRESS, 0, &flags, ids, &count))
		return -1;
	for (__u32 i = 0; i < count; i++) {
		int fd = open_named(ids[i], name);

		if (fd >= 0)
			return fd;
	}
	return -1;
}

static int attach_at(int ifindex, const struct bpf_program *program)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = HANDLE, .priority = PRIORITY, .prog_fd = bpf_program__fd(program),
	            .flags = BPF_TC_F_REPLACE);

	if (has_tcx(ifindex))
		return bpf_prog_attach(bpf_program__fd(program), ifindex, TCX_INGRESS, 0);
	return bpf_tc_attach(&hook, &opts);
}

static int detach_from(const char *interface, const char *name)
{
	int ifindex = (int)if_nametoindex(interface), fd = program_at(ifindex, name), err;
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = HANDLE, .priority = PRIORITY);

	if (fd < 0)
		return 0;
	err = has_tcx(ifindex) ? bpf_prog_detach2(fd, ifindex, TCX_INGRESS) : bpf_tc_detach(&hook, &opts);
	close(fd);
	return err;
}

static __u32 map_id(const struct bpf_object *object, const char *name)
{
	struct bpf_map_info info = { 0 };
	__u32 size = sizeof(info);
	int fd = bpf_object__find_map_fd_by_name(object, name);

	return fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
}

/* Constants are a map of their own until the program is loaded. */
static bool set_constants(struct bpf_object *object, __u32 tap, __u32 uplink, __u32 workers)
{
	const __u32 constants[] = { tap, uplink, workers }; /* in the order of uplink.bpf.c */
	struct bpf_map *map;

	bpf_object__for_each_map(map, object)
	{
		size_t size = 0;
		const void *initial = bpf_map__initial_value(map, &size);

		if (initial && size == sizeof(constants) && strstr(bpf_map__name(map), ".rodata"))
			return !bpf_map__set_initial_value(map, constants, sizeof(constants));
	}
	return false;
}

static int attach(const char *path, const char *uplink, const char *tap, const char *workers)
{
	__u32 from = if_nametoindex(uplink), to = if_nametoindex(tap), count = (__u32)strtoul(workers, NULL, 10);
	struct bpf_object *object;
	int err;

	if (!from || !to)
		return fail(from ? tap : uplink, ENODEV);
	if (!count || count > GZ_UPLINK_WORKERS)
		return fail("number of workers", ERANGE);
	object = bpf_object__open_file(path, NULL);
	if (!object)
		return fail(path, errno);
	if (!set_constants(object, to, from, count))
		return fail("constants of the programs", EINVAL);
	libbpf_set_print(print_refusal);
	err = bpf_object__load(object);
	if (err)
		return fail("loading the programs", err);
	/* Out first: what comes in is answered. */
	err = attach_at((int)to, bpf_object__find_program_by_name(object, "uplink_out"));
	if (err)
		return fail(tap, err);
	err = attach_at((int)from, bpf_object__find_program_by_name(object, "uplink_in"));
	if (err)
		return fail(uplink, err);
	printf("{\"owners\": %u, \"alive\": %u}\n", map_id(object, "gz_owners"), map_id(object, "gz_alive"));
	return 0;
}

static int detach(const char *uplink, const char *tap)
{
	int err = detach_from(uplink, "uplink_in");

	if (err)
		return fail(uplink, err);
	err = detach_from(tap, "uplink_out");
	return err ? fail(tap, err) : 0;
}

/* ------------------------------------------------------------------ maps */

/* A map of the program at an interface: its descriptor and id, or -1. */
static int map_at(const char *uplink, const char *name, __u32 *id)
{
	int program = program_at((int)if_nametoindex(uplink), "uplink_in"), found = -1;
	__u32 ids[16], size = sizeof(struct bpf_prog_info);
	struct bpf_prog_info info = { .nr_map_ids = 16, .map_ids = (__u64)(uintptr_t)ids };

	if (program < 0)
		return -1;
	if (bpf_obj_get_info_by_fd(program, &info, &size))
		info.nr_map_ids = 0;
	for (__u32 i = 0; i < info.nr_map_ids && i < 16 && found < 0; i++) {
		struct bpf_map_info map = { 0 };
		int fd = bpf_map_get_fd_by_id(ids[i]);

		size = sizeof(map);
		if (fd >= 0 && !bpf_obj_get_info_by_fd(fd, &map, &size) && !strcmp(map.name, name)) {
			found = fd;
			*id = map.id;
		} else if (fd >= 0) {
			close(fd);
		}
	}
	close(program);
	return found;
}

static int absent(const char *uplink)
{
	fprintf(stderr, "%s: no program of gazelled is attached to it\n", uplink);
	return ABSENT;
}

static void print_addresses(int map)
{
	struct gz_uplink_address key, next, *at = NULL;
	const char *comma = "";

	for (; !bpf_map_get_next_key(map, at, &next); key = next, at = &key) {
		char text[INET6_ADDRSTRLEN];
		bool v4 = !next.word[0] && !next.word[1] && next.word[2] == htonl(0xffff);

		inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? &next.word[3] : next.word, text, sizeof(text));
		printf("%s\"%s\"", comma, text);
		comma = ", ";
	}
}

static int show(const char *uplink)
{
	struct gz_uplink_state state = { 0 };
	__u32 zero = 0, owners = 0, alive = 0, id;
	int map = map_at(uplink, "gz_state", &id), local = map_at(uplink, "gz_local", &id);

	if (map < 0 || local < 0)
		return absent(uplink);
	(void)bpf_map_lookup_elem(map, &zero, &state);
	(void)map_at(uplink, "gz_owners", &owners);
	(void)map_at(uplink, "gz_alive", &alive);
	printf("{\"owners\": %u, \"alive\": %u, \"kernel_flows\": %llu, \"taken\": %llu, \"kept\": %llu, "
	       "\"fallen_back\": %llu, \"returned\": %llu, \"silenced\": %llu, \"addresses\": [",
	       owners, alive, state.kernel_flows, state.taken, state.kept, state.fallen_back, state.returned,
	       state.silenced);
	print_addresses(local);
	printf("]}\n");
	return 0;
}

static bool read_address(const char *text, struct gz_uplink_address *out)
{
	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET6, text, out->word) == 1)
		return true;
	out->word[2] = htonl(0xffff);
	return inet_pton(AF_INET, text, &out->word[3]) == 1;
}

static bool is_wanted(const struct gz_uplink_address *have, char **wanted, int count)
{
	struct gz_uplink_address each;

	for (int i = 0; i < count; i++)
		if (read_address(wanted[i], &each) && !memcmp(&each, have, sizeof(each)))
			return true;
	return false;
}

/* New ones first: an address that stays is never missing. */
static int set_addresses(const char *uplink, char **wanted, int count)
{
	struct gz_uplink_address key, gone[GZ_UPLINK_ADDRESSES], *at = NULL;
	int map, stale = 0;
	__u32 id;
	__u8 one = 1;

	for (int i = 0; i < count; i++)
		if (!read_address(wanted[i], &key))
			return fail(wanted[i], EINVAL);
	map = map_at(uplink, "gz_local", &id);
	if (map < 0)
		return absent(uplink);
	for (int i = 0; i < count; i++)
		if (!read_address(wanted[i], &key) || bpf_map_update_elem(map, &key, &one, BPF_ANY))
			return fail(wanted[i], errno);
	for (struct gz_uplink_address next; !bpf_map_get_next_key(map, at, &next); key = next, at = &key)
		if (!is_wanted(&next, wanted, count))
			gone[stale++] = next;
	while (stale > 0)
		(void)bpf_map_delete_elem(map, &gone[--stale]);
	return 0;
}

/* One page-aligned map in memory, or NULL. */
static void *map_memory(const char *uplink, const char *name, size_t size)
{
	__u32 id;
	int map = map_at(uplink, name, &id);
	void *memory = map < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);

	if (map >= 0)
		close(map);
	return memory == MAP_FAILED ? NULL : memory;
}

static int ports(const char *uplink)
{
	__u64 *owners = map_memory(uplink, "gz_owners", GZ_UPLINK_PORTS * sizeof(*owners));
	const char *comma = "";

	if (!owners)
		return absent(uplink);
	printf("[");
	for (__u32 port = 0; port < GZ_UPLINK_PORTS / 2; port++) {
		if (!__atomic_load_n(&owners[port], __ATOMIC_RELAXED))
			continue;
		printf("%s%u", comma, port);
		comma = ", ";
	}
	printf("]\n");
	return 0;
}

static int settle(const char *uplink)
{
	struct gz_uplink_state *state = map_memory(uplink, "gz_state", sizeof(*state));

	if (!state)
		return absent(uplink);
	__atomic_store_n(&state->kernel_flows, 0, __ATOMIC_RELAXED);
	return 0;
}

static int method(const char *uplink)
{
	int ifindex = (int)if_nametoindex(uplink);

	if (!ifindex)
		return fail(uplink, ENODEV);
	puts(has_tcx(ifindex) ? "tcx" : "clsact");
	return 0;
}

int main(int argc, char **argv)
{
	libbpf_set_print(print_nothing);
	if (argc == 3 && !strcmp(argv[1], "method"))
		return method(argv[2]);
	if (argc == 6 && !strcmp(argv[1], "attach"))
		return attach(argv[2], argv[3], argv[4], argv[5]);
	if (argc == 4 && !strcmp(argv[1], "detach"))
		return detach(argv[2], argv[3]);
	if (argc == 3 && !strcmp(argv[1], "show"))
		return show(argv[2]);
	if (argc >= 3 && argc - 3 <= (int)GZ_UPLINK_ADDRESSES && !strcmp(argv[1], "addresses"))
		return set_addresses(argv[2], argv + 3, argc - 3);
	if (argc == 3 && !strcmp(argv[1], "ports"))
		return ports(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "settle"))
		return settle(argv[2]);
	fprintf(stderr, "usage: uplinkctl method UPLINK | attach OBJECT UPLINK TAP WORKERS | detach UPLINK TAP | show UPLINK |\n"
	                "       addresses UPLINK [ADDRESS]... | ports UPLINK | settle UPLINK\n");
	return USAGE;
}
