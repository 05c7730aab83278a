/* SPDX-License-Identifier: Apache-2.0 */
/* Planted mistakes are caught: they stop with a message, or give a wrong result under some seed. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "asan.h"
#include "control.h"
#include "kernels.h"
#include "test.h"

namespace {

struct outcome {
  bool died, wrong;
  std::string told;
};

/* In a child process, since what is caught ends it. */
outcome try_planted(const char *name, unsigned seed) {
  int ends[2];
  if (pipe(ends) != 0) return {};
  fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    alarm(60);
    emulator::asan_report_to_stderr(); /* even where ASAN_OPTIONS=log_path sends reports elsewhere */
    tare_emulator_set_seed(seed);
    const array<float> x(512, 1.0f);
    if (launch_planted(name, x.data, 512) != cudaSuccess || cudaDeviceSynchronize() != cudaSuccess) _exit(3);
    bool wrong = false;
    for (const float v : x.get()) wrong |= v != 1.0f;
    _exit(wrong ? 2 : 0);
  }
  close(ends[1]);
  outcome result = {};
  char text[4096];
  for (ssize_t n; (n = read(ends[0], text, sizeof text)) > 0;) result.told.append(text, size_t(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  result.wrong = WIFEXITED(status) && WEXITSTATUS(status) == 2;
  result.died = !WIFEXITED(status) || (WEXITSTATUS(status) != 0 && !result.wrong);
  return result;
}

constexpr unsigned seeds = 16;

/* Stops under every seed with this text, or with AddressSanitizer's report and our line on where. */
void test_stops(const char *name, const char *expected) {
  for (unsigned seed = 0; seed < 3; seed++) {
    const outcome o = try_planted(name, seed);
    const bool ours = o.told.find(expected) != std::string::npos;
    const bool sanitizer = o.told.find("AddressSanitizer") != std::string::npos;
    check(o.died && (ours || sanitizer), name, __FILE__, __LINE__);
    if (!o.died || !(ours || sanitizer)) fprintf(stderr, "  seed %u told: %s\n", seed, o.told.c_str());
    if (seed == 0 && getenv("TARE_SHOW")) printf("%s -> %s", name, o.told.c_str());
  }
}

/* Gives a wrong result under at least one seed, and under none without the mistake. */
void test_shows(const char *name) {
  unsigned shown = 0;
  const std::string right = std::string(name) + "_right";
  for (unsigned seed = 0; seed < seeds; seed++) {
    shown += try_planted(name, seed).wrong;
    const outcome o = try_planted(right.c_str(), seed);
    check(!o.wrong && !o.died, right.c_str(), __FILE__, __LINE__);
  }
  check(shown > 0, name, __FILE__, __LINE__);
  printf("  %-20s wrong under %u of %u seeds\n", name, shown, seeds);
}

}  // namespace

void test_planted() {
  test_shows("missing_barrier");
  test_shows("warp_barrier_only");
  test_shows("reused_too_early");
  test_shows("ticket_too_early");
  test_shows("copied_too_early");
  test_shows("unwritten_shared");
  test_stops("shared_overrun", "past the end of");
  test_stops("shared_underrun", "written out of bounds");
  test_stops("global_overrun", "past the end of allocation");
  test_stops("global_underrun", "bytes before the start of allocation");
  test_stops("global_far", "past the end of allocation");
  test_stops("global_read_far", "past the end of allocation");
  test_stops("misaligned", "misaligned");
  test_stops("barrier_in_branch", "divergent");
  test_stops("barrier_after_return", "has exited");
  test_stops("two_barriers", "do not meet");
  test_stops("barrier_against_shuffle", "divergent");
  test_stops("shuffle_in_branch", "divergent");
  test_stops("half_mask", "only the full mask");
  test_stops("waits_for_a_block", "cooperative launch");
  test_stops("block_leaves", "nobody can go on");
  test_stops("host_pointer", "is host memory");
  test_stops("host_pointer_itself", "is host memory");
  test_stops("stack_overflow", "stack is full");
  test_stops("freed", "which is freed");
  test_stops("host_touches_device", "host code touches");
}
