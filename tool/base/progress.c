/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress by SIGALRM: a step that ends within a second costs nothing and shows nothing.
 */
#define _GNU_SOURCE
#include "progress.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static const char *volatile current;
static volatile sig_atomic_t shown;
static volatile sig_atomic_t percent; /* of the step, or of the work it is a part of; -1: not known */
static int64_t part, parts;           /* of a longer work; 0 parts: there is none */

static void put(const char *text) {
  ssize_t written = write(STDERR_FILENO, text, strlen(text));
  (void)written; /* a lost progress line is no error */
}

/* No printf: a signal handler may not call it. */
static void put_percent(int value) {
  char text[] = "   % ";
  for (int place = 2; place >= 0 && (value > 0 || place == 2); place--, value /= 10)
    text[place] = (char)('0' + value % 10);
  put(text);
}

static void show(int signal_number) {
  (void)signal_number;
  if (!current) return;
  shown = 1;
  put("\r\033[K");
  if (percent >= 0) put_percent((int)percent);
  put(current);
  put(" ...");
  alarm(1);
}

void progress_begin(const char *step) {
  progress_end();
  if (!isatty(STDERR_FILENO)) return;
  struct sigaction action = {.sa_handler = show, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaction(SIGALRM, &action, NULL);
  progress_at(0, 0);
  current = step;
  alarm(1);
}

void progress_at(int64_t done, int64_t total) {
  const double of_step = total > 0 ? (double)done / (double)total : 0;
  if (parts > 0)
    percent = (sig_atomic_t)(100 * ((double)part + of_step) / (double)parts);
  else
    percent = total > 0 ? (sig_atomic_t)(100 * of_step) : -1;
}

void progress_part(int64_t number, int64_t of) {
  part = number;
  parts = of;
}

void progress_end(void) {
  if (!current) return;
  alarm(0);
  current = NULL;
  if (shown) put("\r\033[K");
  shown = 0;
}
