/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Who may attach: by what the kernel says of who connects, of all his groups and of no others. Runs as root. */
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <gazelle/group_page.h>

#include "shared/access.h"

#define SOMEBODY 61001u

static int listen_fd;
static struct sockaddr_un name = { .sun_family = AF_UNIX };

static int open_socket(void **state)
{
	(void)state;
	snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "gz-access-%d", (int)getpid());
	listen_fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	return bind(listen_fd, (struct sockaddr *)&name, sizeof(name)) || listen(listen_fd, 1);
}

static int close_socket(void **state)
{
	(void)state;
	return close(listen_fd);
}

/* Whether a process of this user, in these groups, may attach. */
static bool may(const struct gz_group_page *group, uid_t uid, gid_t gid, const gid_t *groups, size_t count)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	pid_t child = fork();
	bool answer;
	int fd;

	if (!child) {
		char end;
		int own = socket(AF_UNIX, SOCK_SEQPACKET, 0);

		if (setgroups(count, groups) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid) ||
		    connect(own, (struct sockaddr *)&name, sizeof(name)))
			_exit(1);
		(void)!read(own, &end, 1);
		_exit(0);
	}
	fd = accept(listen_fd, NULL, NULL);
	assert_true(fd >= 0);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len), 0);
	assert_int_equal(cred.uid, uid);
	answer = access_may_attach(group, fd, &cred);
	close(fd);
	assert_int_equal(waitpid(child, NULL, 0), child);
	return answer;
}

static void root_may_and_a_stranger_may_not(void **state)
{
	static const struct gz_group_page nobody;
	static const struct gz_group_page everybody = { .allow_everybody = 1 };

	(void)state;
	assert_true(may(&nobody, 0, 0, NULL, 0));
	assert_false(may(&nobody, SOMEBODY, SOMEBODY, NULL, 0));
	assert_false(may(&nobody, SOMEBODY, 0, NULL, 0)); /* root's group is not root */
	assert_true(may(&everybody, SOMEBODY, SOMEBODY, NULL, 0));
}

static void a_user_that_is_named_may(void **state)
{
	static const struct gz_group_page group = { .allow_uid_count = 2, .allow_uids = { 7, SOMEBODY, SOMEBODY + 1 } };

	(void)state;
	assert_true(may(&group, SOMEBODY, 5, NULL, 0));
	assert_false(may(&group, SOMEBODY + 1, SOMEBODY, NULL, 0)); /* behind the end of the list; and a gid is no uid */
}

static void who_is_in_a_group_may_by_whichever_of_his_groups(void **state)
{
	static const struct gz_group_page group = { .allow_gid_count = 1, .allow_gids = { 100 } };
	static gid_t many[2000];

	(void)state;
	for (uint32_t i = 0; i < 2000; i++)
		many[i] = 70000 + i;
	assert_true(may(&group, SOMEBODY, 100, NULL, 0));
	assert_true(may(&group, SOMEBODY, SOMEBODY, (gid_t[]){ 5, 100 }, 2));
	assert_false(may(&group, SOMEBODY, SOMEBODY, (gid_t[]){ 5, 101 }, 2));
	assert_false(may(&group, 100, SOMEBODY, NULL, 0));
	assert_false(may(&group, SOMEBODY, SOMEBODY, many, 2000));
	many[1234] = 100;
	assert_true(may(&group, SOMEBODY, SOMEBODY, many, 2000)); /* more than are asked for at first */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(root_may_and_a_stranger_may_not),
		cmocka_unit_test(a_user_that_is_named_may),
		cmocka_unit_test(who_is_in_a_group_may_by_whichever_of_his_groups),
	};
	return cmocka_run_group_tests_name("access", tests, open_socket, close_socket);
}
