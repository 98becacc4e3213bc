/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "shim_kit.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gazelle/abi.h>
#include <gazelle/group_page.h>
#include <gazelle/message.h>

#include "input.h"

#define FDS_MAX 253 /* of one message */

static char dir[64];
static pid_t worker_pid;

static void clean_up(void)
{
	DIR *entries;
	const struct dirent *entry;

	if (!dir[0])
		return;
	kill(worker_pid, SIGKILL);
	waitpid(worker_pid, NULL, 0);
	entries = opendir(dir);
	while (entries && (entry = readdir(entries)))
		unlinkat(dirfd(entries), entry->d_name, 0);
	if (entries)
		closedir(entries);
	rmdir(dir);
}

static void raise_loopback(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0); /* of any other family the library would want to know whose it is */

	ioctl(fd, SIOCSIFFLAGS, &request);
	close(fd);
}

static void write_page(char *path, size_t room)
{
	struct gz_group_page page = { .magic = GZ_GROUP_MAGIC,
		                      .abi_version = GZ_ABI_VERSION,
		                      .size = sizeof(page),
		                      .num_queue = 1,
		                      .tot_queue_num = 1,
		                      .driver = GZ_DRIVER_NONE,
		                      .spin_us = 20,
		                      .mtu = 1500,
		                      .nic_read_number = 32,
		                      .rpc_number = 64,
		                      .read_connect_number = 4,
		                      .host_addr_be = inet_addr(SHIM_ADDR),
		                      .netmask_be = inet_addr("255.255.255.0"),
		                      .allow_everybody = 1,
		                      .file_gid = GZ_NO_ID };
	int fd;

	/* The stack's own addresses are IPv6; this one mapped (RFC 4291, 2.5.5.2). */
	memset((uint8_t *)page.own[0] + 10, 0xff, 2);
	memcpy((uint8_t *)page.own[0] + 12, &page.host_addr_be, sizeof(page.host_addr_be));

	page.workers[0] = (struct gz_worker_plan){
		.cpu = -1, .numa = -1, .mbufs = 512, .name = "fuzz", .comm = "fuzz", .pool = "fuzz"
	};
	snprintf(page.instance, sizeof(page.instance), "fuzz%d", (int)getpid());
	snprintf(page.run_dir, sizeof(page.run_dir), "%s", dir);
	snprintf(path, room, "%s/group.0", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	MUST(fd >= 0 && write(fd, &page, sizeof(page)) == (ssize_t)sizeof(page));
	close(fd);
}

/* build/lstack/lstack, beside the directory we are in. */
static void start_worker(const char *program, const char *page)
{
	char lstack[512], ready[16], line[64] = "";
	const char *slash = strrchr(program, '/');
	int way[2];

	snprintf(lstack, sizeof(lstack), "%.*s/../build/lstack/lstack", slash ? (int)(slash - program) : 1,
	         slash ? program : ".");
	MUST(!pipe(way));
	worker_pid = fork();
	MUST(worker_pid >= 0);
	if (!worker_pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(ready, sizeof(ready), "%d", way[1]);
		execl(lstack, "fuzz", "--group", page, "--queue", "0", "--ready-fd", ready, (char *)NULL);
		_exit(127);
	}
	close(way[1]);
	if (read(way[0], line, sizeof(line) - 1) <= 0 || strncmp(line, "ready", 5)) {
		fprintf(stderr, "%s does not start (scripts/build makes it): %s\n", lstack, line);
		exit(1);
	}
	close(way[0]);
}

void shim_begin(const char *program)
{
	struct rlimit files = { 4096, 4096 };
	char page[160];

	if (unshare(CLONE_NEWNET))
		fprintf(stderr, "note: not root: in the network namespace of this machine\n");
	raise_loopback();
	signal(SIGPIPE, SIG_IGN);
	setrlimit(RLIMIT_NOFILE, &files);
	snprintf(dir, sizeof(dir), "/tmp/gz-fuzz-XXXXXX");
	MUST(mkdtemp(dir));
	atexit(clean_up);
	write_page(page, sizeof(page));
	start_worker(program, page);
	setenv("GAZELLED_GROUP", page, 1);
	setenv("GAZELLED_FALLBACK", "kernel", 1);
}

int shim_listen(struct sockaddr_in *at)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*at);

	*at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = inet_addr(SHIM_ADDR) };
	MUST(fd >= 0 && !bind(fd, (struct sockaddr *)at, sizeof(*at)) && !listen(fd, 64));
	MUST(!getsockname(fd, (struct sockaddr *)at, &len));
	return fd;
}

int shim_bind(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = inet_addr(SHIM_ADDR) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	MUST(fd >= 0 && !bind(fd, (struct sockaddr *)&at, sizeof(at)));
	return fd;
}

bool shim_pair(int listener, const struct sockaddr_in *at, int ends[2])
{
	struct pollfd come = { .fd = listener, .events = POLLIN };

	ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ends[1] = -1;
	if (!connect(ends[0], (const struct sockaddr *)at, sizeof(*at)) || errno == EINPROGRESS)
		if (poll(&come, 1, 5000) == 1) /* TCP_DEFER_ACCEPT, which an input may set, is a second */
			ends[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (ends[1] >= 0)
		return true;
	close(ends[0]);
	return false;
}

void shim_use(int fd, uint8_t how)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT };
	char bytes[3000];
	int value = 1, got;

	if (fd < 0)
		return;
	switch (how % 12) {
	case 0:
		got = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (got >= 0)
			close(got);
		break;
	case 1:
	case 2:
		(void)!recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT | (how & 64 ? MSG_PEEK : 0));
		break;
	case 3:
	case 4:
		memset(bytes, how, sizeof(bytes));
		(void)!send(fd, bytes, how < 128 ? how : sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 5:
		poll(&p, 1, 0);
		break;
	case 6:
		getsockname(fd, (struct sockaddr *)&addr, &len);
		len = sizeof(addr);
		getpeername(fd, (struct sockaddr *)&addr, &len);
		break;
	case 7:
		len = sizeof(value);
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &len);
		ioctl(fd, FIONREAD, &value);
		break;
	case 8:
		shutdown(fd, how / 12 % 3);
		break;
	case 9:
		setsockopt(fd, IPPROTO_TCP, 1 + how / 12, &value, sizeof(value));
		break;
	case 10:
		got = epoll_create1(EPOLL_CLOEXEC);
		epoll_ctl(got, EPOLL_CTL_ADD, fd, &event);
		epoll_wait(got, &event, 1, 0);
		close(got);
		break;
	default:
		got = dup(fd);
		if (got >= 0)
			close(got);
	}
}

static void *bare(const char *name)
{
	void *library = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);

	return dlsym(library, name);
}

long shim_bare_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	static ssize_t (*function)(int, const struct msghdr *, int);

	if (!function)
		function = bare("sendmsg");
	return function(fd, msg, flags);
}

long shim_bare_recvmsg(int fd, struct msghdr *msg, int flags)
{
	static ssize_t (*function)(int, struct msghdr *, int);

	if (!function)
		function = bare("recvmsg");
	return function(fd, msg, flags);
}

bool shim_post(int to, const void *bytes, size_t len, const int *fds, uint32_t count)
{
	union {
		char buf[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { (void *)bytes, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count) {
		msg.msg_control = control.buf;
		gz_fds_put(&msg, fds, count);
	}
	return shim_bare_sendmsg(to, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (long)len;
}

long shim_fetch(int from, void *bytes, size_t len, int *fds, uint32_t most, uint32_t *count)
{
	union {
		char buf[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { bytes, len };
	struct msghdr msg = { .msg_iov = &iov,
		              .msg_iovlen = 1,
		              .msg_control = control.buf,
		              .msg_controllen = CMSG_SPACE(most * sizeof(int)) };
	long n = shim_bare_recvmsg(from, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	*count = n < 0 ? 0 : gz_fds_take(&msg, fds, most);
	return n;
}
