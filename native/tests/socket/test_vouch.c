/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Who may own a port: what the kernel says of the socket that a process shows, and nothing else. The "processes" post raw
 * requests, as one that lies would.
 */
#include <sched.h>
#include <sys/resource.h>

#include <gazelle/arena.h>
#include <gazelle/atomic.h>
#include <gazelle/bell.h>
#include <gazelle/channel.h>
#include <gazelle/control.h>
#include <gazelle/fifo.h>
#include <gazelle/worker_page.h>

#include "attach_kit.h"

#define SOMEBODY 12345 /* a user nobody has */

/* Options of a kernel socket, before it is bound. */
enum { SHARED = 1, REUSED = 2 };

struct shown {
	int fd;
	struct gz_request request;
};

/* A kernel socket on any address, listening if it is for LISTEN, and the request that goes with it. Port 0: a free one. */
static struct shown show(uint32_t op, uint16_t port, unsigned int options)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct shown shown = { .fd = socket(AF_INET, op == GZ_REQUEST_BIND ? SOCK_DGRAM : SOCK_STREAM, 0) };
	socklen_t len = sizeof(in);
	int on = 1;

	if (options & SHARED)
		assert_int_equal(setsockopt(shown.fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
	if (options & REUSED)
		assert_int_equal(setsockopt(shown.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	assert_int_equal(bind(shown.fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(getsockname(shown.fd, (struct sockaddr *)&in, &len), 0);
	if (op == GZ_REQUEST_LISTEN)
		assert_int_equal(listen(shown.fd, 5), 0);
	shown.request = (struct gz_request){ .op = op, .port = ntohs(in.sin_port), .arg = 5, .family = AF_INET };
	shown.request.addr[10] = shown.request.addr[11] = 0xff;
	return shown;
}

/* Somebody else has made it. */
static void is_somebodys(const struct shown *shown)
{
	if (fchown(shown->fd, SOMEBODY, (gid_t)-1))
		skip();
}

/* The error that a request ends with; 0: it was granted. */
static int outcome(struct process *p, uint32_t n)
{
	const struct gz_end *end = &p->arena->sock[n].worker;
	uint32_t flags = gz_load(&end->flags);

	assert_true(flags & (GZ_WORKER_LISTENING | GZ_WORKER_CONNECTED | GZ_WORKER_DEAD));
	return flags & GZ_WORKER_DEAD ? (int)gz_load(&end->error) : 0;
}

/* Asks for what `shown` says, showing `fd` (-1: nothing); the number it got. */
static uint32_t ask_with(struct process *p, const struct shown *shown, int fd)
{
	struct gz_request request = shown->request;

	request.sock = from_stock(p);
	if (fd >= 0)
		vouch(p, request.sock, fd);
	post(p, request);
	return request.sock;
}

static uint32_t ask(struct process *p, const struct shown *shown)
{
	return ask_with(p, shown, shown->fd);
}

static bool is_free(uint32_t op, uint16_t port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, op == GZ_REQUEST_BIND ? SOCK_DGRAM : SOCK_STREAM, 0);
	bool free = !bind(fd, (struct sockaddr *)&in, sizeof(in));

	close(fd);
	return free;
}

static void a_port_is_had_only_with_the_kernels_word(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct shown listener = show(GZ_REQUEST_LISTEN, 0, 0), datagram = show(GZ_REQUEST_BIND, 0, 0), lie = listener;
	int bound = socket(AF_INET, SOCK_STREAM, 0), ends[2];
	struct sockaddr_in in = { .sin_family = AF_INET };

	assert_int_equal(bind(bound, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(outcome(&p, ask_with(&p, &listener, -1)), EACCES);
	assert_int_equal(outcome(&p, ask_with(&p, &datagram, -1)), EACCES);
	assert_int_equal(outcome(&p, ask_with(&p, &listener, datagram.fd)), EACCES);
	assert_int_equal(outcome(&p, ask_with(&p, &datagram, listener.fd)), EACCES);
	assert_int_equal(outcome(&p, ask_with(&p, &listener, ends[0])), EACCES);
	assert_int_equal(outcome(&p, ask_with(&p, &listener, p.fd)), EACCES);
	lie.request.port++;
	assert_int_equal(outcome(&p, ask(&p, &lie)), EACCES);
	lie = listener;
	memcpy(lie.request.addr + 12, &fx->group->host_addr_be, 4); /* the nearer address would take what another's is */
	assert_int_equal(outcome(&p, ask(&p, &lie)), EACCES);
	lie = listener;
	lie.request.family = AF_INET6;
	assert_int_equal(outcome(&p, ask(&p, &lie)), EACCES);
	lie = listener;
	lie.fd = bound; /* it does not listen */
	assert_int_equal(outcome(&p, ask(&p, &lie)), EACCES);
	assert_int_equal(outcome(&p, ask(&p, &listener)), 0);
	assert_int_equal(outcome(&p, ask(&p, &datagram)), 0);
	close(ends[0]);
	close(ends[1]);
	close(bound);
	close(listener.fd);
	close(datagram.fd);
	leave(&p);
}

static void a_peer_in_the_request_is_no_excuse(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct shown victim = show(GZ_REQUEST_BIND, 0, 0), thief = victim, client = { 0 };

	assert_int_equal(outcome(&p, ask(&p, &victim)), 0);
	thief.request.peer[10] = thief.request.peer[11] = 0xff;
	thief.request.peer[12] = 10;
	thief.request.peer[15] = 1;
	thief.request.peer_port = 5353;
	assert_int_equal(outcome(&p, ask_with(&p, &thief, -1)), EACCES);
	/* And a connection from a port that others have. */
	client.request = (struct gz_request){ .op = GZ_REQUEST_CONNECT, .port = 22, .peer_port = 1, .family = AF_INET };
	memcpy(client.request.peer, thief.request.peer, 16);
	memcpy(client.request.addr, victim.request.addr, 16);
	assert_int_equal(outcome(&p, ask_with(&p, &client, -1)), EACCES);
	close(victim.fd);
	leave(&p);
}

/* Two users have the port in the kernel, which let them, or was made to. */
static void another_user_does_not_join(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO), q = greet(dial(), GZ_MESSAGE_HELLO);
	uint32_t ops[] = { GZ_REQUEST_LISTEN, GZ_REQUEST_BIND };

	for (size_t i = 0; i < 2; i++) {
		struct shown first = show(ops[i], 0, SHARED), second = show(ops[i], first.request.port, SHARED);
		struct shown third = show(ops[i], first.request.port, SHARED);

		is_somebodys(&third);
		assert_int_equal(outcome(&p, ask(&p, &first)), 0);
		assert_int_equal(outcome(&q, ask(&q, &second)), 0);
		assert_int_equal(outcome(&q, ask(&q, &third)), EADDRINUSE);
		assert_int_equal(outcome(&q, ask(&q, &first)), 0); /* the same socket, passed on */
		close(first.fd);
		close(second.fd);
		close(third.fd);
	}
	leave(&p);
	leave(&q);
}

static void datagram_sockets_share_as_the_kernel_lets_them(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct shown first = show(GZ_REQUEST_BIND, 0, REUSED), second = show(GZ_REQUEST_BIND, first.request.port, REUSED);

	is_somebodys(&second);
	assert_int_equal(outcome(&p, ask(&p, &first)), 0);
	assert_int_equal(outcome(&p, ask(&p, &second)), 0);
	close(first.fd);
	close(second.fd);
	leave(&p);
}

static void the_port_lives_as_long_as_in_the_kernel(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	uint32_t ops[] = { GZ_REQUEST_LISTEN, GZ_REQUEST_BIND };

	for (size_t i = 0; i < 2; i++) {
		struct shown shown = show(ops[i], 0, 0);
		uint32_t n = ask(&p, &shown);

		close(shown.fd);
		assert_false(is_free(ops[i], shown.request.port)); /* the process cannot give it back and keep it here */
		post(&p, (struct gz_request){ .op = GZ_REQUEST_RELEASE, .sock = n });
		assert_true(is_free(ops[i], shown.request.port));
	}
	leave(&p);
}

static void a_listener_that_was_shut_behind_our_back_is_none(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct shown shown = show(GZ_REQUEST_LISTEN, 0, REUSED);
	uint32_t n = ask(&p, &shown);

	assert_int_equal(shutdown(shown.fd, SHUT_RDWR), 0);
	turn();
	turn();
	assert_int_equal(outcome(&p, n), EADDRINUSE);
	assert_int_equal(gz_load(&fx->stack.page->listeners[0].port_owner), 0);
	/* Its successor, of another user, has the port alone. */
	struct shown next = show(GZ_REQUEST_LISTEN, shown.request.port, REUSED);
	is_somebodys(&next);
	assert_int_equal(outcome(&p, ask(&p, &next)), 0);
	post(&p, (struct gz_request){ .op = GZ_REQUEST_BACKLOG, .sock = n, .arg = 1 });
	gz_bell_ring(&p.channel->to_worker, n);
	turn();
	post(&p, (struct gz_request){ .op = GZ_REQUEST_RELEASE, .sock = n });
	turn();
	assert_int_equal(counter(GZ_COUNT_sockets), 1);
	close(shown.fd);
	close(next.fd);
	leave(&p);
}

static void who_has_moved_away_in_the_kernel_loses_the_port(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct shown first = show(GZ_REQUEST_BIND, 0, SHARED), next;
	struct sockaddr_in self = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	uint32_t n = ask(&p, &first);
	int off = 0;

	next = show(GZ_REQUEST_BIND, first.request.port, SHARED);
	is_somebodys(&next);
	self.sin_port = htons(first.request.port);
	assert_int_equal(setsockopt(first.fd, SOL_SOCKET, SO_REUSEPORT, &off, sizeof(off)), 0);
	assert_int_equal(connect(first.fd, (struct sockaddr *)&self, sizeof(self)), 0);
	assert_int_equal(outcome(&p, ask(&p, &next)), 0);
	assert_int_equal(outcome(&p, n), EADDRINUSE);
	gz_bell_ring(&p.channel->to_worker, n);
	turn();
	close(first.fd);
	close(next.fd);
	leave(&p);
}

static void what_the_dead_had_is_free_for_who_asks(void **state)
{
	(void)state;
	struct process dead = greet(dial(), GZ_MESSAGE_HELLO), p = greet(dial(), GZ_MESSAGE_HELLO);
	struct shown shown = show(GZ_REQUEST_LISTEN, 0, 0);

	assert_int_equal(outcome(&dead, ask(&dead, &shown)), 0);
	close(shown.fd);
	close(dead.fd);
	dead.fd = -1;
	assert_false(is_free(GZ_REQUEST_LISTEN, shown.request.port));
	struct gz_request_ring *ring = &p.channel->requests;
	ring->slot[0] = (struct gz_request){ .op = GZ_REQUEST_LOOK };
	gz_store_release(&ring->head, 1);
	gz_bell_ring(&p.channel->to_worker, 0);
	apps_poll(&fx->stack); /* not what looks at the control sockets by itself */
	assert_int_equal(gz_load(&ring->tail), 1);
	assert_true(is_free(GZ_REQUEST_LISTEN, shown.request.port));
	leave(&dead);
	leave(&p);
}

static void without_a_descriptor_left_it_says_so(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct shown shown = show(GZ_REQUEST_LISTEN, 0, 0);
	struct rlimit before, none;
	uint32_t n;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	n = ask(&p, &shown);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(outcome(&p, n), ENOBUFS);
	assert_int_equal(outcome(&p, ask(&p, &shown)), 0);
	close(shown.fd);
	leave(&p);
}

static void who_only_vouches_is_detached(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO);
	struct shown shown = show(GZ_REQUEST_LISTEN, 0, 0);

	for (uint32_t n = 0; n < 100; n++) {
		vouch(&p, n, shown.fd);
		turn();
		if (!fx->stack.apps->all)
			break;
	}
	close(shown.fd);
	assert_null(fx->stack.apps->all);
	assert_true(is_free(GZ_REQUEST_LISTEN, shown.request.port));
	leave(&p);
}

/* Another kernel's word: of the same port, in a network namespace of its own. */
static struct shown show_abroad(uint32_t op, uint16_t port)
{
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct shown shown;

	if (unshare(CLONE_NEWNET)) {
		close(home);
		skip();
	}
	shown = show(op, port, 0);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	close(home);
	return shown;
}

static void another_namespace_owns_nothing_here(void **state)
{
	(void)state;
	struct process p = greet(dial(), GZ_MESSAGE_HELLO), q = greet(dial(), GZ_MESSAGE_HELLO);
	uint32_t ops[] = { GZ_REQUEST_LISTEN, GZ_REQUEST_BIND };

	for (size_t i = 0; i < 2; i++) {
		struct shown abroad = show_abroad(ops[i], 8080), here = show(ops[i], 8080, 0);
		uint32_t n;

		fx->group->foreign_listen = 0;
		assert_int_equal(outcome(&q, ask(&q, &abroad)), EADDRNOTAVAIL);
		fx->group->foreign_listen = 1;
		n = ask(&q, &abroad);
		assert_int_equal(outcome(&q, n), 0);
		assert_int_equal(outcome(&p, ask(&p, &here)), 0); /* our kernel's word goes first */
		assert_int_equal(outcome(&q, n), EADDRINUSE);
		assert_int_equal(outcome(&q, ask(&q, &abroad)), EADDRINUSE);
		close(here.fd);
		close(abroad.fd);
	}
	leave(&p);
	leave(&q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_port_is_had_only_with_the_kernels_word),
		TEST(a_peer_in_the_request_is_no_excuse),
		TEST(another_user_does_not_join),
		TEST(datagram_sockets_share_as_the_kernel_lets_them),
		TEST(the_port_lives_as_long_as_in_the_kernel),
		TEST(a_listener_that_was_shut_behind_our_back_is_none),
		TEST(who_has_moved_away_in_the_kernel_loses_the_port),
		TEST(what_the_dead_had_is_free_for_who_asks),
		TEST(without_a_descriptor_left_it_says_so),
		TEST(who_only_vouches_is_detached),
		TEST(another_namespace_owns_nothing_here),
	};

	return open_libraries() || cmocka_run_group_tests(tests, NULL, NULL);
}
