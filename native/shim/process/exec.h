/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * What of this process's sockets outlives an exec. The connections are the workers' and stay where they are; the new program
 * must find out which descriptor is which, and take the old one's place at the workers. So before an exec the old one
 * leaves a record in a memfd that is inherited with the sockets and named in the environment (exec_env.h), and a control socket for every
 * worker that has one of them: the one a forked child was given and has not used yet, or that of a "child" introduced for
 * this. The new program claims it with the first socket it uses, as a forked child does. An exec that inherits no accelerated
 * socket costs a look at the table.
 */
#ifndef SHIM_EXEC_H
#define SHIM_EXEC_H

struct exec_target;

/*
 * Before an exec with this environment. Returns the one to call it with: `envp` itself if there is nothing to change. Nothing else
 * may be called before the exec or exec_failed(). Any thread, no locks held.
 */
char **exec_prepare(const struct exec_target *target, char *const envp[]);

/* Before main: takes over what the program before an exec has left, if there was one. Waits for nothing. */
void exec_inherit(void);

/* The exec has failed: all is as before. `env` is what exec_prepare returned. Keeps errno. */
void exec_failed(char **env, char *const envp[]);

#endif
