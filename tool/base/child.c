/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child process in its own process group, so that the processes it starts are killed with it.
 */
#define _GNU_SOURCE
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "signals.h"
#include "stopwatch.h"

extern char **environ;

static atomic_int group; /* 0: none runs */

void child_kill(void) {
  int running = atomic_load(&group);
  if (running > 0) kill(-running, SIGKILL);
}

enum { IN, OUT, ERR, STREAMS };

struct child {
  pid_t pid;
  struct pollfd ours[STREAMS]; /* fd -1: closed */
  int theirs[STREAMS];
  const char *input;
  size_t input_left, most_output, room;
  struct child_answer *answer;
  char line[512]; /* the line of its standard error so far, cut */
  size_t line_length;
};

static int open_pipes(struct child *child) {
  for (int stream = 0; stream < STREAMS; stream++) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    int own = stream == IN ? 1 : 0;
    child->ours[stream] = (struct pollfd){.fd = ends[own], .events = stream == IN ? POLLOUT : POLLIN};
    child->theirs[stream] = ends[1 - own];
    if (fcntl(ends[own], F_SETFL, O_NONBLOCK) != 0) return -1;
  }
  return 0;
}

static void close_end(int *descriptor) {
  if (*descriptor >= 0) close(*descriptor);
  *descriptor = -1;
}

/* Returns 0 or an errno. */
static int spawn(struct child *child, char *const *arguments) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t usual;
  signals_of_child(&usual);
  int failed = posix_spawn_file_actions_init(&actions);
  if (failed) return failed;
  failed = posix_spawnattr_init(&attributes);
  if (failed) {
    posix_spawn_file_actions_destroy(&actions);
    return failed;
  }
  for (int stream = 0; !failed && stream < STREAMS; stream++) {
    failed = posix_spawn_file_actions_adddup2(&actions, child->theirs[stream], stream);
  }
  if (!failed) failed = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
  if (!failed) failed = posix_spawnattr_setpgroup(&attributes, 0);
  if (!failed) failed = posix_spawnattr_setsigdefault(&attributes, &usual);
  signals_hold();
  if (!failed) failed = posix_spawnp(&child->pid, arguments[0], &actions, &attributes, arguments, environ);
  if (!failed) atomic_store(&group, child->pid);
  signals_release();
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return failed;
}

/* gnuplot prints the place in the script, then the reason. So the last line with words is kept. */
static void keep_reason(struct child *child, const char *bytes, size_t length) {
  for (size_t index = 0; index < length; index++) {
    if (bytes[index] != '\n') {
      if (child->line_length + 1 < sizeof child->line) child->line[child->line_length++] = bytes[index];
      continue;
    }
    child->line[child->line_length] = 0;
    if (child->line[strspn(child->line, " \t^")]) memcpy(child->answer->reason, child->line, sizeof child->line);
    child->line_length = 0;
  }
}

static int keep_output(struct child *child, const char *bytes, size_t length) {
  struct child_answer *answer = child->answer;
  if (length > child->most_output - answer->length) return CHILD_TOO_LARGE;
  if (answer->length + length + 1 > child->room) {
    size_t room = 2 * child->room + length + 1;
    char *grown = realloc(answer->text, room);
    if (!grown) return CHILD_NOT_RUN;
    answer->text = grown;
    child->room = room;
  }
  memcpy(answer->text + answer->length, bytes, length);
  answer->length += length;
  answer->text[answer->length] = 0;
  return CHILD_SUCCEEDED;
}

static void feed(struct child *child) {
  ssize_t written = write(child->ours[IN].fd, child->input, child->input_left);
  if (written > 0) {
    child->input += written;
    child->input_left -= (size_t)written;
  }
  bool over = child->input_left == 0 || (written < 0 && errno != EAGAIN && errno != EINTR);
  if (over) close_end(&child->ours[IN].fd);
}

static int take(struct child *child, int stream) {
  char bytes[16384];
  ssize_t length = read(child->ours[stream].fd, bytes, sizeof bytes);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return CHILD_SUCCEEDED;
  if (length <= 0) {
    if (stream == ERR) keep_reason(child, "\n", 1);
    close_end(&child->ours[stream].fd);
    return CHILD_SUCCEEDED;
  }
  if (stream == OUT) return keep_output(child, bytes, (size_t)length);
  keep_reason(child, bytes, (size_t)length);
  return CHILD_SUCCEEDED;
}

/* Until it has closed both of its outputs. */
static int talk(struct child *child, double deadline) {
  int end = CHILD_SUCCEEDED;
  while (end == CHILD_SUCCEEDED && (child->ours[OUT].fd >= 0 || child->ours[ERR].fd >= 0)) {
    double left = deadline - seconds_now();
    if (left <= 0) return CHILD_TOO_LATE;
    int ready = poll(child->ours, STREAMS, (int)(left * 1e3) + 1);
    if (ready < 0 && errno != EINTR) return CHILD_NOT_RUN;
    if (ready <= 0) continue;
    if (child->ours[IN].fd >= 0 && child->ours[IN].revents) feed(child);
    for (int stream = OUT; end == CHILD_SUCCEEDED && stream <= ERR; stream++) {
      if (child->ours[stream].fd >= 0 && child->ours[stream].revents) end = take(child, stream);
    }
  }
  return end;
}

/* Its group is killed before the process is reaped. After that the number could belong to another process. */
static int finish(struct child *child, int end, double deadline) {
  siginfo_t about = {0};
  while (end == CHILD_SUCCEEDED) {
    int failed = waitid(P_PID, (id_t)child->pid, &about, WEXITED | WNOHANG | WNOWAIT);
    if (failed ? errno != EINTR : about.si_pid == child->pid) break;
    if (seconds_now() > deadline) end = CHILD_TOO_LATE;
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
  }
  child_kill();
  int status = 0, kept = errno;
  while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) continue;
  atomic_store(&group, 0);
  errno = kept;
  if (end == CHILD_SUCCEEDED && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) end = CHILD_FAILED;
  return end;
}

enum child_end child_run(char *const *arguments, const char *input, size_t input_length, double seconds,
                         size_t most_output, struct child_answer *answer) {
  double deadline = seconds_now() + seconds;
  struct child child = {.input = input, .input_left = input_length, .most_output = most_output, .answer = answer};
  *answer = (struct child_answer){0};
  for (int stream = 0; stream < STREAMS; stream++) child.ours[stream].fd = child.theirs[stream] = -1;
  int failed = open_pipes(&child) != 0 ? errno : spawn(&child, arguments);
  for (int stream = 0; stream < STREAMS; stream++) close_end(&child.theirs[stream]);
  int end = failed == ENOENT ? CHILD_MISSING : CHILD_NOT_RUN;
  if (!failed) {
    end = finish(&child, talk(&child, deadline), deadline);
    failed = errno;
  }
  for (int stream = 0; stream < STREAMS; stream++) close_end(&child.ours[stream].fd);
  errno = failed;
  return (enum child_end)end;
}
