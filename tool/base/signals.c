/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals. A mask cannot hold them, because they are sent to the process, and a thread of the library may receive one.
 */
#define _GNU_SOURCE
#include "signals.h"

#include <stdatomic.h>
#include <stddef.h>

#include "child.h"
#include "outfile.h"

static const int deadly[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXCPU, SIGALRM, SIGUSR1, SIGUSR2};
enum { DEADLY = sizeof deadly / sizeof deadly[0] };

static atomic_int held, waiting; /* lock-free, as a handler needs it */

static void clean_up_and_die(int signal_number) {
  if (atomic_load(&held)) {
    atomic_store(&waiting, signal_number);
    return;
  }
  child_kill();
  outfile_unlink();
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

void signals_watch(void) {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  for (int index = 0; index < DEADLY; index++) {
    struct sigaction now, action = {.sa_handler = clean_up_and_die};
    sigemptyset(&action.sa_mask);
    sigaction(deadly[index], NULL, &now);
    if (now.sa_handler != SIG_IGN) sigaction(deadly[index], &action, NULL); /* nohup stays nohup */
  }
}

void signals_hold(void) { atomic_fetch_add(&held, 1); }

void signals_release(void) {
  if (atomic_fetch_sub(&held, 1) != 1) return;
  int signal_number = atomic_exchange(&waiting, 0);
  if (signal_number) clean_up_and_die(signal_number);
}

void signals_of_child(sigset_t *usual) {
  sigemptyset(usual);
  sigaddset(usual, SIGPIPE);
  sigaddset(usual, SIGXFSZ);
}
