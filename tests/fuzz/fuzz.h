/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share. Each fuzz_*.c holds one property of one way in, as libFuzzer wants it; replay.c runs the
 * same function over files, so that every build of the tests does too. A property that does not hold ends the process.
 */
#ifndef TARE_FUZZ_H
#define TARE_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- Input as numbers: what is missing reads as 0 ---------------------------------------------------------------- */

typedef struct fuzz_input {
  const uint8_t *at;
  size_t left;
} fuzz_input;

uint8_t take_byte(fuzz_input *input);
uint64_t take_word(fuzz_input *input); /**< 8 bytes */
double take_double(fuzz_input *input); /**< of any bits */

/** 0..n-1; n in 1..256. */
int64_t take_below(fuzz_input *input, int64_t n);

/** Mostly small and often sensible; sometimes an end of its range. */
int64_t take_odd_int(fuzz_input *input);
double take_odd_double(fuzz_input *input);

/* ---- Guarded memory ---------------------------------------------------------------------------------------------- */

/** `bytes` that begin or end at memory that must not be touched, as the input decides, filled with FUZZ_FILL. Never
 *  NULL. `alignment` is a power of two. All of it is freed by guarded_free_all. */
void *guarded(fuzz_input *input, size_t bytes, size_t alignment);
enum { FUZZ_FILL = 0xA5 };

/** Remembers what all guarded memory holds now; the second says whether it holds the same. */
void guarded_remember(void);
bool guarded_is_unchanged(void);
void guarded_free_all(void);

/* ---- What came of it: a target that only ever refuses shows nothing ---------------------------------------------- */

extern int64_t fuzz_computed, fuzz_refused;
void fuzz_count(bool computed);

/* ---- Properties -------------------------------------------------------------------------------------------------- */

#define EXPECT(condition, ...)                                                \
  do {                                                                        \
    if (!(condition)) fuzz_fail(__FILE__, __LINE__, #condition, __VA_ARGS__); \
  } while (0)
void fuzz_fail(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 4, 5), noreturn));

#endif
