/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What a program that takes descriptors from others may be sent: packed sockets (passed_sock.h) that nobody of its own program has made, or
 * that somebody has changed on the way. It gets no descriptor for them, keeps what it has, and goes on.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <gazelle/abi.h>
#include <gazelle/arena.h>
#include <gazelle/group_page.h>
#include <gazelle/message.h>
#include <gazelle/same_host.h>

#include "kit.h"
#include "process/passed_sock.h"
#include "core/sock.h"

#define NUMBERS 24u /* more than the socket numbers a test's program holds */

struct letter {
	struct passed_sock packed;
	int fds[8];
	uint32_t count;
};

/* The C library's own function: what a program without the library calls. */
static void *bare(const char *name)
{
	void *library = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);

	assert_non_null(library);
	return dlsym(library, name);
}

static void post(int to, const void *data, size_t len, const int *fds, uint32_t count)
{
	_Alignas(struct cmsghdr) char room[CMSG_SPACE(8 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)data, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room };
	ssize_t (*bare_sendmsg)(int, const struct msghdr *, int) = bare("sendmsg");

	gz_fds_put(&msg, fds, count);
	assert_int_equal(bare_sendmsg(to, &msg, MSG_NOSIGNAL), len);
}

static uint32_t fetch(int from, void *data, size_t len, int *fds)
{
	_Alignas(struct cmsghdr) char room[CMSG_SPACE(8 * sizeof(int))];
	struct iovec iov = { data, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	ssize_t (*bare_recvmsg)(int, struct msghdr *, int) = bare("recvmsg");

	assert_int_equal(bare_recvmsg(from, &msg, 0), len);
	return gz_fds_take(&msg, fds, 8);
}

/* Sends the letter as a packed socket, which the program receives as usual: the descriptor it gets, or -1. Closes what was in it. */
static int deliver(const struct letter *letter)
{
	struct gz_envelope envelope;
	int way[2], ends[2], got = -1;
	char byte;
	struct msghdr *msg = gz_envelope_open(&envelope, &byte, 1);

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, way), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	post(ends[1], &letter->packed, sizeof(letter->packed), letter->fds, letter->count);
	post(way[1], "f", 1, ends, 1);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(recvmsg(way[0], msg, 0), 1);
	(void)gz_fds_take(msg, &got, 1);
	assert_int_equal((msg->msg_flags & MSG_CTRUNC) != 0, got < 0);
	for (uint32_t i = 0; i < letter->count; i++)
		close(letter->fds[i]);
	close(way[0]);
	close(way[1]);
	return got;
}

/* A genuine one, for a socket of ours, taken out of the way it goes. */
static struct letter intercepted(int fd)
{
	struct gz_envelope envelope;
	struct letter letter;
	int way[2], packed;
	char byte;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, way), 0);
	assert_int_equal(sendmsg(way[1], gz_envelope_fill(&envelope, "f", 1, &fd, 1), 0), 1);
	assert_int_equal(fetch(way[0], &byte, 1, &packed), 1);
	letter.count = fetch(packed, &letter.packed, sizeof(letter.packed), letter.fds);
	close(packed);
	close(way[0]);
	close(way[1]);
	return letter;
}

static struct letter forged(enum sock_kind kind, uint32_t number)
{
	struct letter letter = { .count = 2 };

	letter.packed = (struct passed_sock){ .magic = PASSED_SOCK_MAGIC, .abi_version = GZ_ABI_VERSION, .fds = 2 };
	letter.packed.snapshot.kind = kind;
	letter.packed.snapshot.family = AF_INET;
	letter.packed.snapshot.n = letter.packed.snapshot.entry[0] = number;
	letter.fds[PLACEHOLDER] = socket(AF_INET, SOCK_STREAM, 0);
	letter.fds[FIRST_END] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return letter;
}

/* What the victim has: a listener, and both ends of a connection. */
static int listener, client, served;

static int set_up(void **state)
{
	listener = kit_listen(STACK_ADDR, 0);
	client = kit_connect(PEER_ADDR, kit_port(listener));
	served = accept(listener, NULL, NULL);
	return served < 0;
}

static int tear_down(void **state)
{
	int another = kit_connect(PEER_ADDR, kit_port(listener)), last = accept(listener, NULL, NULL);

	kit_send(client, "still");
	kit_expect(served, "still");
	kit_send(another, "there");
	kit_expect(last, "there");
	close(another);
	close(last);
	close(served);
	kit_expect_eof(client);
	close(client);
	close(listener);
	return 0;
}

static void a_passed_descriptor_brings_the_socket(void **state)
{
	struct letter letter = intercepted(served);
	int got = deliver(&letter);

	assert_true(got >= 0);
	kit_send(got, "x");
	kit_expect(client, "x");
	close(got);
	letter = intercepted(listener);
	got = deliver(&letter);
	assert_int_equal(kit_port(got), kit_port(listener));
	close(got);
}

/* The numbers of everything the program has, and an end that proves nothing. */
static void a_number_is_no_proof(void **state)
{
	static const enum sock_kind kinds[] = { KIND_LISTENER, KIND_STREAM, KIND_DGRAM };

	for (uint32_t k = 0; k < 3; k++)
		for (uint32_t n = 0; n < NUMBERS; n++) {
			struct letter letter = forged(kinds[k], n);

			assert_int_equal(deliver(&letter), -1);
		}
}

/* An end that is one, but of a connection to the program itself, of another attachment, or of nobody. */
static void an_end_of_something_else_is_no_proof(void **state)
{
	struct letter letter = forged(KIND_STREAM, 1);
	int pair[2];

	close(letter.fds[FIRST_END]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	letter.fds[FIRST_END] = pair[0];
	assert_int_equal(deliver(&letter), -1);
	close(pair[1]);
	struct letter good = intercepted(served);
	letter = forged(KIND_STREAM, 1);
	close(letter.fds[FIRST_END]);
	letter.fds[FIRST_END] = dup(good.fds[PLACEHOLDER]);
	assert_int_equal(deliver(&letter), -1);
	assert_true((pair[0] = deliver(&good)) >= 0);
	close(pair[0]);
}

static void numbers_out_of_range_are_refused(void **state)
{
	static const uint32_t wrong[] = { GZ_WORKERS_MAX, GZ_SOCKS_MAX, 1u << 31, UINT32_MAX };

	for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct letter letter = forged(KIND_STREAM, wrong[i]);

		letter.packed.end[0].slot = wrong[i];
		assert_int_equal(deliver(&letter), -1);
		letter = forged((enum sock_kind)wrong[i], 1);
		assert_int_equal(deliver(&letter), -1);
		letter = forged(KIND_LISTENER, 1);
		letter.packed.fds = wrong[i];
		assert_int_equal(deliver(&letter), -1);
		letter = forged(KIND_STREAM, 1);
		letter.packed.paired = 1;
		letter.packed.pair.members = wrong[i];
		assert_int_equal(deliver(&letter), -1);
		letter = forged(KIND_STREAM, 1);
		letter.packed.paired = wrong[i];
		letter.packed.pair.members = UINT32_MAX; /* more than there can be: the count of descriptors would overflow */
		assert_int_equal(deliver(&letter), -1);
	}
}

/* A packed socket somebody has opened and closed again: the socket in it is the worker's to name, what is said beside it is not believed. */
static void what_was_changed_on_the_way_is_not_believed(void **state)
{
	struct letter letter = intercepted(served);
	char text[16];
	int got;

	letter.packed.snapshot.n = 1;
	letter.packed.snapshot.family = 77;
	close(deliver(&letter)); /* we have it: what the packed socket says of it is not looked at */
	letter = intercepted(served);
	letter.packed.snapshot.kind = KIND_LISTENER;
	assert_int_equal(deliver(&letter), -1);
	letter = intercepted(listener);
	letter.packed.snapshot.kind = KIND_STREAM;
	assert_int_equal(deliver(&letter), -1);
	letter = intercepted(served);
	letter.packed.paired = 1;
	letter.packed.fds = letter.count = 3;
	letter.fds[PAIR_MEMORY] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(deliver(&letter), -1);
	/* Nobody here has it any more, so it is made anew: by nonsense not at all, else as the number says. */
	int other = kit_connect(PEER_ADDR, kit_port(listener)), last = accept(listener, NULL, NULL);
	struct letter nonsense = intercepted(last);
	letter = intercepted(last);
	close(last);
	nonsense.packed.snapshot.family = 77;
	assert_int_equal(deliver(&nonsense), -1);
	letter.packed.snapshot.n = 1;
	memset(&letter.packed.snapshot.options.linger, 0x55, 1);
	letter.packed.snapshot.options.known = 0;
	letter.packed.snapshot.nonblock = 0xaa;
	got = deliver(&letter);
	assert_true(got >= 0);
	kit_send(got, "it");
	kit_expect(other, "it");
	assert_int_equal(recv(got, text, sizeof(text), 0), -1);
	assert_int_equal(errno, EAGAIN);
	close(other);
	close(got);
}

static int pair_memory_of(unsigned int flags, int seals)
{
	int fd = memfd_create("gazelle-pair", MFD_CLOEXEC | flags);
	struct gz_pair *pair;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)GZ_PAIR_SIZE), 0);
	pair = mmap(NULL, sizeof(*pair), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(pair, MAP_FAILED);
	pair->magic = GZ_PAIR_MAGIC;
	pair->abi_version = GZ_ABI_VERSION;
	pair->socks = GZ_PAIR_SOCKS;
	for (uint32_t side = 0; side < 2; side++) {
		pair->side[side].member[0] = GZ_MEMBER(1, GZ_MEMBER_ALIVE);
		pair->side[side].processes = 1;
		pair->sock[1].end[side].flags = GZ_WORKER_OPEN | GZ_WORKER_CONNECTED;
	}
	munmap(pair, sizeof(*pair));
	if (seals)
		assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

/* With no end, with one of something else, and with a genuine one of another socket; in memory that can shrink and in some that cannot. */
static void a_pair_is_one_that_a_worker_has_made(void **state)
{
	for (uint32_t i = 0; i < 6; i++) {
		struct letter letter = i % 3 == 2 ? intercepted(served) : forged(KIND_STREAM, 1);
		int members[2], again,
			memory = pair_memory_of(i < 3 ? 0 : MFD_ALLOW_SEALING, i < 3 ? 0 : F_SEAL_SHRINK | F_SEAL_GROW);

		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, members), 0);
		letter.packed.paired = 1;
		letter.packed.fds = letter.count = 4;
		letter.packed.pair.members = 1;
		letter.packed.pair.socket[0].life = 1;
		if (i % 3 == 1) {
			close(letter.fds[FIRST_END]);
			letter.fds[FIRST_END] = dup(members[1]);
		}
		again = letter.fds[PAIR_MEMORY] = memory;
		again = dup(again);
		letter.fds[PAIR_MEMBER_SOCKETS] = members[0];
		assert_int_equal(deliver(&letter), -1);
		(void)!ftruncate(again, 0); /* nobody may have mapped it */
		close(again);
		close(members[1]);
		kit_send(client, "y");
		kit_expect(served, "y");
	}
}

/* Another user sits where a worker was: he is not even greeted. */
static void nobody_else_is_a_worker(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const char *page = getenv("GAZELLED_GROUP");
	struct pollfd heard;
	int at, fd, way[2];
	pid_t child;
	char byte;

	if (geteuid())
		skip(); /* root alone can be another */
	group_kill_worker(0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.*s/worker.0.sock", (int)(strrchr(page, '/') - page), page);
	assert_int_equal(pipe(way), 0);
	child = fork();
	if (!child) {
		at = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		unlink(addr.sun_path);
		if (bind(at, (struct sockaddr *)&addr, sizeof(addr)) || setresuid(65534, 65534, 65534) || listen(at, 5))
			_exit(1);
		(void)!write(way[1], "l", 1);
		heard = (struct pollfd){ .fd = accept(at, NULL, NULL), .events = POLLIN };
		if (heard.fd < 0 || poll(&heard, 1, 10000) != 1)
			_exit(2);
		_exit(read(heard.fd, &byte, 1) ? 3 : 0); /* it hangs up, and has said nothing */
	}
	assert_int_equal(read(way[0], &byte, 1), 1);
	int status = -1;
	for (uint64_t until = now_ns() + 10000000000ull; !waitpid(child, &status, WNOHANG) && now_ns() < until;) {
		fd = socket(AF_INET, SOCK_STREAM, 0); /* looks for its worker now and then */
		struct sockaddr_in nobody = kit_addr(PEER_ADDR, 1);
		(void)connect(fd, (struct sockaddr *)&nobody, sizeof(nobody));
		close(fd);
		poll(NULL, 0, 1);
	}
	assert_int_equal(status, 0);
	close(way[0]);
	close(way[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
static const struct CMUnitTest tests[] = {
	TEST(a_passed_descriptor_brings_the_socket),       TEST(a_number_is_no_proof),
	TEST(an_end_of_something_else_is_no_proof),        TEST(numbers_out_of_range_are_refused),
	TEST(what_was_changed_on_the_way_is_not_believed), TEST(a_pair_is_one_that_a_worker_has_made),
	cmocka_unit_test(nobody_else_is_a_worker),
};

KIT_MAIN(tests, 1)
