/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers out of bytes, and memory between pages that must not be touched.
 */
#define _GNU_SOURCE
#include "fuzz.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void fuzz_fail(const char *file, int line, const char *condition, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "%s:%d: not so: %s: ", file, line, condition);
  vfprintf(stderr, format, arguments);
  fprintf(stderr, "\n");
  va_end(arguments);
  abort();
}

int64_t fuzz_computed, fuzz_refused;

void fuzz_count(bool computed) { ++*(computed ? &fuzz_computed : &fuzz_refused); }

/* ---- Numbers ----------------------------------------------------------------------------------------------------- */

uint8_t take_byte(fuzz_input *input) {
  if (input->left == 0) return 0;
  input->left--;
  return *input->at++;
}

uint64_t take_word(fuzz_input *input) {
  uint64_t word = 0;
  for (int i = 0; i < 8; i++) word |= (uint64_t)take_byte(input) << (8 * i);
  return word;
}

double take_double(fuzz_input *input) {
  const uint64_t word = take_word(input);
  double value;
  memcpy(&value, &word, sizeof value);
  return value;
}

int64_t take_below(fuzz_input *input, int64_t n) { return take_byte(input) % n; }

int64_t take_odd_int(fuzz_input *input) {
  static const int64_t ends[] = {INT64_MAX,
                                 INT64_MIN,
                                 INT64_C(1) << 58,
                                 (INT64_C(1) << 58) + 1,
                                 INT64_C(1) << 40,
                                 -(INT64_C(1) << 60),
                                 INT32_MAX,
                                 INT32_MIN,
                                 INT64_C(1) << 32,
                                 INT64_MAX - 1,
                                 65536,
                                 1025};
  const int64_t choice = take_below(input, 64);
  if (choice < (int64_t)(sizeof ends / sizeof *ends)) return ends[choice];
  if (choice < 16) return (int64_t)take_word(input);
  return (int8_t)take_byte(input);
}

double take_odd_double(fuzz_input *input) {
  static const double usual[] = {0, 1, -1, 0.25, 0.5, 2, 30, 1e-9, -0.0, 1e30, INFINITY, -INFINITY, NAN, 10000};
  const int64_t choice = take_below(input, 20);
  return choice < 14 ? usual[choice] : take_double(input);
}

/* ---- Guarded memory ---------------------------------------------------------------------------------------------- */

enum { PAGE = 4096, MOST_PIECES = 512 };

static struct piece {
  unsigned char *map, *memory, *before;
  size_t mapped, bytes;
} pieces[MOST_PIECES];
static int count;

void *guarded(fuzz_input *input, size_t bytes, size_t alignment) {
  EXPECT(count < MOST_PIECES, "%d", count);
  const size_t pages = bytes / PAGE * PAGE + PAGE;
  struct piece *p = &pieces[count++];
  *p = (struct piece){.mapped = pages + 2 * PAGE, .bytes = bytes};
  p->map = mmap(NULL, p->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT(p->map != MAP_FAILED, "no %zu bytes", p->mapped);
  mprotect(p->map, PAGE, PROT_NONE);
  mprotect(p->map + PAGE + pages, PAGE, PROT_NONE);
  const bool at_end = take_byte(input) % 4 != 0;
  p->memory = p->map + PAGE + (at_end ? (pages - bytes) / alignment * alignment : 0);
  memset(p->map + PAGE, FUZZ_FILL, pages);
  return p->memory;
}

/* The whole of the pages, the part that is nobody's included. */
void guarded_remember(void) {
  for (int i = 0; i < count; i++) {
    struct piece *p = &pieces[i];
    const size_t inner = p->mapped - 2 * PAGE;
    free(p->before);
    p->before = malloc(inner);
    EXPECT(p->before != NULL, "no %zu bytes", inner);
    memcpy(p->before, p->map + PAGE, inner);
  }
}

bool guarded_is_unchanged(void) {
  for (int i = 0; i < count; i++) {
    if (memcmp(pieces[i].before, pieces[i].map + PAGE, pieces[i].mapped - 2 * PAGE) != 0) return false;
  }
  return true;
}

void guarded_free_all(void) {
  while (count > 0) {
    const struct piece *p = &pieces[--count];
    munmap(p->map, p->mapped);
    free(p->before);
  }
}
