/* SPDX-License-Identifier: Apache-2.0 */
/* How a mistake is told: one line on standard error that names kernel, block and thread, then abort(). */
#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "asan.h"
#include "device.h"
#include "thread.h"

namespace emulator {

namespace {

/* From the program's own symbols by addr2line, since a static function has no dynamic symbol. */
void name_kernel(const void *kernel, char *name, size_t size) {
  snprintf(name, size, "kernel at %p", kernel);
  Dl_info in = {};
  if (!kernel || !dladdr(const_cast<void *>(kernel), &in) || !in.dli_fname) return;
  char command[1200];
  snprintf(command, sizeof command, "addr2line -C -f -e '%s' 0x%zx 2>/dev/null", in.dli_fname,
           size_t(static_cast<const char *>(kernel) - static_cast<const char *>(in.dli_fbase)));
  FILE *pipe = popen(command, "r");
  if (!pipe) return;
  char line[400];
  if (fgets(line, sizeof line, pipe) && line[0] != '?') {
    line[strcspn(line, "\n")] = 0;
    snprintf(name, size, "kernel %s", line);
  }
  pclose(pipe);
}

/* "kernel k, block (0,0,0), thread (3,0,0): ", as far as it is known. */
void print_where() {
  if (!launched) return;
  char name[420];
  name_kernel(launched->kernel, name, sizeof name);
  fprintf(stderr, "%s", name);
  if (self) {
    const uint3 &b = self->its_block->index, &t = self->index;
    fprintf(stderr, ", block (%u,%u,%u), thread (%u,%u,%u)", b.x, b.y, b.z, t.x, t.y, t.z);
  }
  fprintf(stderr, ": ");
}

[[noreturn]] void finish() {
  fprintf(stderr, " (TARE_EMULATOR_SEED=%llu)\n", static_cast<unsigned long long>(seed()));
  abort();
}

[[maybe_unused]] void print_context() {
  if (!launched) return;
  fprintf(stderr, "tare emulator: ");
  print_where();
  fprintf(stderr, "see above (TARE_EMULATOR_SEED=%llu)\n", static_cast<unsigned long long>(seed()));
}

[[maybe_unused]] void on_fault(int number, siginfo_t *info, void *) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
  const bool ours = self || (address >> 32 >= 0x2000 && address >> 32 < 0x5000);
  signal(number, SIG_DFL);
  if (!ours) return; /* and fault again */
  char where[200];
  describe_address(info->si_addr, where, sizeof where);
  if (self) {
    const uintptr_t bottom = reinterpret_cast<uintptr_t>(self->stack.stack_bottom);
    if (address < bottom && address + size_t(sysconf(_SC_PAGESIZE)) >= bottom) fail("the thread's stack is full");
  }
  fail("%s touches %s", self ? "it" : "host code", where);
}

/* Runs before main. AddressSanitizer reports faults better than we can and asks us for the context. */
struct installer {
  installer() {
#if TARE_EMULATOR_ASAN
    __sanitizer_set_death_callback(print_context);
#else
    static char stack[1 << 16];
    stack_t alternate = {};
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
#endif
  }
} install;

}  // namespace

void fail(const char *format, ...) {
  fflush(stdout);
  fprintf(stderr, "tare emulator: ");
  print_where();
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  finish();
}

void fail_divergent(const thread &here, const thread &there, const char *why) {
  char a[300], b[300];
  describe(here, a, sizeof a);
  describe(there, b, sizeof b);
  self = nullptr;
  fail("divergent threads: %s; %s: %s", a, b, why);
}

void describe(const thread &t, char *text, size_t size) {
  const uint3 &b = t.its_block->index;
  const int used = snprintf(text, size, "block (%u,%u,%u) thread (%u,%u,%u) %s", b.x, b.y, b.z, t.index.x, t.index.y,
                            t.index.z, t.now == state::exited ? "has exited" : t.doing);
  if (t.now != state::exited && used > 0 && size_t(used) < size)
    snprintf(text + used, size - size_t(used), " at %s:%d", t.at.file, t.at.line);
}

}  // namespace emulator
