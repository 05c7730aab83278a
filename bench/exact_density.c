/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exact_density THREADS ROWS CLASSES DTYPE LIBRARY...: GHM-C's exact density by builds of libtare.so, beside a sort.
 *
 * DTYPE: f32, bf16, f16 or dense (f32 with dense targets). A call computes loss and gradient. The sort is a radix sort
 * of as many 32-bit keys (dense: of 64 bits), least digit first, on as many threads, which are awake and wait at
 * barriers. It is done with digits of 8 bits and of 11, and the faster counts; and with 11 bits once more, asking for
 * the lines that it will write, as the library's sort does. The libraries, the sorts and a copy take turns; medians.
 * MEAN and WIDTH are those of the logits, -4.6 and 1.5. ROUNDS is 15.
 * Build: cc -O3 -march=native -pthread -Iinclude bench/exact_density.c -ldl -lm
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tare.h"

enum { MOST_LIBRARIES = 4, MOST_ROUNDS = 101, MOST_DIGITS = 2048, MOST_THREADS = 64 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* The sort. */

static struct sorting {
  int threads, bits, bytes, asks_early; /* bytes: of a key */
  int64_t n;
  const void *given;
  void *room[2];
  uint64_t count[MOST_THREADS][MOST_DIGITS];
  atomic_int arrived, round;
} sorting;

/** Awake: a barrier that sleeps would take longer than a pass. */
static void meet(void) {
  const int round = atomic_load(&sorting.round);
  if (atomic_fetch_add(&sorting.arrived, 1) + 1 == sorting.threads) {
    atomic_store(&sorting.arrived, 0);
    atomic_fetch_add(&sorting.round, 1);
  } else {
    while (atomic_load(&sorting.round) == round) __builtin_ia32_pause();
  }
}

static void prefix(int digits) {
  uint64_t sum = 0;
  for (int d = 0; d < digits; d++)
    for (int t = 0; t < sorting.threads; t++) {
      const uint64_t count = sorting.count[t][d];
      sorting.count[t][d] = sum;
      sum += count;
    }
}

#define SORT(name, key_type)                                                                                      \
  static void name(int thread) {                                                                                  \
    const int64_t start = sorting.n * thread / sorting.threads, end = sorting.n * (thread + 1) / sorting.threads; \
    const int digits = 1 << sorting.bits, passes = (8 * (int)sizeof(key_type) + sorting.bits - 1) / sorting.bits; \
    const key_type *from = sorting.given, mask = (key_type)(digits - 1);                                          \
    uint64_t *at = sorting.count[thread];                                                                         \
    for (int pass = 0; pass < passes; pass++) {                                                                   \
      key_type *to = sorting.room[pass & 1];                                                                      \
      const int shift = pass * sorting.bits;                                                                      \
      memset(at, 0, (size_t)digits * sizeof *at);                                                                 \
      for (int64_t i = start; i < end; i++) at[(from[i] >> shift) & mask]++;                                      \
      meet();                                                                                                     \
      if (!thread) prefix(digits);                                                                                \
      meet();                                                                                                     \
      if (sorting.asks_early)                                                                                     \
        for (int64_t i = start; i < end; i++) {                                                                   \
          key_type *const place = to + at[(from[i] >> shift) & mask]++;                                           \
          *place = from[i];                                                                                       \
          __builtin_prefetch((const char *)place + 128, 1);                                                       \
        }                                                                                                         \
      else                                                                                                        \
        for (int64_t i = start; i < end; i++) to[at[(from[i] >> shift) & mask]++] = from[i];                      \
      meet();                                                                                                     \
      from = to;                                                                                                  \
    }                                                                                                             \
  }
SORT(sort_u32, uint32_t)
SORT(sort_u64, uint64_t)

static void *sort_part(void *thread) {
  const int t = (int)(intptr_t)thread;
  if (sorting.bytes == 4)
    sort_u32(t);
  else
    sort_u64(t);
  return NULL;
}

/** Threads are made for each sort; the time starts when all of them have arrived. */
static double last_start;
static void *sort_thread(void *thread) {
  meet();
  if (!thread) last_start = now();
  return sort_part(thread);
}

static double time_sort(int bits, int asks_early) {
  pthread_t made[MOST_THREADS];
  sorting.bits = bits;
  sorting.asks_early = asks_early;
  for (int t = 1; t < sorting.threads; t++) pthread_create(&made[t], NULL, sort_thread, (void *)(intptr_t)t);
  sort_thread(NULL);
  const double took = now() - last_start;
  for (int t = 1; t < sorting.threads; t++) pthread_join(made[t], NULL);
  return took;
}

/* The calls. */

typedef struct library {
  tare_context *context;
  tare_status (*evaluate)(tare_context *, const tare_loss_spec *, const tare_batch *, const tare_output *, tare_stream);
  tare_output output;
} library;

static void *function_of(void *handle, const char *name) {
  void *function = dlsym(handle, name);
  if (!function) fprintf(stderr, "%s\n", dlerror()), exit(1);
  return function;
}

#define LOOK_UP(handle, name) ((__typeof__(&name))function_of(handle, #name))

static void open_library(const char *path, int threads, const tare_loss_spec *loss, const tare_batch *batch,
                         void **workspace, uint64_t *room, library *l) {
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) fprintf(stderr, "%s\n", dlerror()), exit(1);
  tare_context_options options;
  LOOK_UP(handle, tare_context_options_init_sized)(&options, sizeof options);
  options.device = TARE_DEVICE_CPU;
  options.threads = threads;
  uint64_t bytes;
  if (LOOK_UP(handle, tare_context_create)(&l->context, &options) ||
      LOOK_UP(handle, tare_workspace_size)(l->context, loss, batch, &l->output, &bytes))
    fprintf(stderr, "no context\n"), exit(1);
  if (bytes > *room) *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64), *room = bytes;
  LOOK_UP(handle, tare_context_set_workspace)(l->context, *workspace, bytes);
  l->evaluate = LOOK_UP(handle, tare_evaluate);
}

static double normal(uint64_t *state) {
  double u[2];
  for (int i = 0; i < 2; i++) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    u[i] = ((double)(*state >> 11) + 0.5) * 0x1p-53;
  }
  return sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]);
}

static uint16_t to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (uint16_t)((bits + 0x8000) >> 16);
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *times, int n) {
  qsort(times, (size_t)n, sizeof *times, by_value);
  return times[n / 2];
}

int main(int argc, char **argv) {
  if (argc < 6) return 2;
  const int threads = atoi(argv[1]), libraries = argc - 5;
  const int64_t rows = atoll(argv[2]), classes = atoll(argv[3]), n = rows * classes;
  const char *type = argv[4];
  const int is_dense = !strcmp(type, "dense"), is_half = !strcmp(type, "bf16") || !strcmp(type, "f16");
  const double mean = getenv("MEAN") ? atof(getenv("MEAN")) : -4.6,
               width = getenv("WIDTH") ? atof(getenv("WIDTH")) : 1.5;
  const int rounds = getenv("ROUNDS") ? atoi(getenv("ROUNDS")) : 15;
  float *logits = malloc((size_t)n * 4), *gradient = malloc((size_t)n * 4), *targets = malloc((size_t)n * 4);
  uint16_t *halves = malloc((size_t)n * 2);
  int32_t *labels = malloc((size_t)rows * 4);
  uint64_t state = 1;
  for (int64_t i = 0; i < n; i++) {
    logits[i] = (float)(mean + width * normal(&state));
    if (!strcmp(type, "bf16")) halves[i] = to_bf16(logits[i]);
    if (!strcmp(type, "f16")) {
      const _Float16 h = (_Float16)logits[i];
      memcpy(&halves[i], &h, 2);
    }
    targets[i] = i % 80 == 7 ? (float)(state >> 40) * 0x1p-24f : 0;
  }
  for (int64_t r = 0; r < rows; r++) labels[r] = r % 100 == 0 ? (int32_t)(r % classes) : -1;

  tare_loss_spec loss;
  tare_batch batch;
  tare_level level;
  library of[MOST_LIBRARIES] = {0};
  void *first = dlopen(argv[5], RTLD_NOW | RTLD_LOCAL), *workspace = NULL;
  if (!first) fprintf(stderr, "%s\n", dlerror()), exit(1);
  LOOK_UP(first, tare_loss_spec_init_sized)(&loss, TARE_LOSS_GHM_C, sizeof loss);
  LOOK_UP(first, tare_batch_init_sized)(&batch, sizeof batch, sizeof level);
  LOOK_UP(first, tare_level_init_rows_sized)(&level, rows, classes, sizeof level);
  loss.ghm.density = TARE_GHM_DENSITY_EXACT;
  level.logits = is_half ? (void *)halves : (void *)logits;
  level.gradient = gradient;
  level.labels = is_dense ? NULL : labels;
  level.targets = is_dense ? targets : NULL;
  batch.levels = &level;
  batch.level_count = 1;
  batch.classes = classes;
  batch.dtype = !strcmp(type, "bf16") ? TARE_DTYPE_BF16 : !strcmp(type, "f16") ? TARE_DTYPE_F16 : TARE_DTYPE_F32;
  uint64_t room = 0;
  float result[MOST_LIBRARIES];
  for (int l = 0; l < libraries; l++) {
    LOOK_UP(first, tare_output_init_sized)(&of[l].output, sizeof of[l].output);
    of[l].output.loss = &result[l];
    open_library(argv[5 + l], threads, &loss, &batch, &workspace, &room, &of[l]);
  }
  sorting.threads = threads;
  sorting.n = n;
  sorting.bytes = is_dense ? 8 : 4;
  void *keys = malloc((size_t)(n * sorting.bytes));
  for (int r = 0; r < 2; r++) sorting.room[r] = malloc((size_t)(n * sorting.bytes));
  for (int64_t i = 0; i < n; i++) { /* as their unsigned order has it */
    const double x = is_half ? (double)(float)logits[i] : (double)logits[i];
    uint32_t b;
    uint64_t b64;
    const float f = (float)x;
    memcpy(&b, &f, 4);
    memcpy(&b64, &x, 8);
    if (is_dense)
      ((uint64_t *)keys)[i] = (b64 >> 63 ? ~b64 : b64 | UINT64_C(1) << 63) ^ (state = state * 5 + 1) >> 35;
    else
      ((uint32_t *)keys)[i] = b >> 31 ? ~b : b | 0x80000000;
  }
  sorting.given = keys;
  double times[MOST_LIBRARIES + 4][MOST_ROUNDS];
  for (int round = 0; round < rounds; round++) {
    for (int l = 0; l < libraries; l++) {
      const double start = now();
      if (of[l].evaluate(of[l].context, &loss, &batch, &of[l].output, NULL)) return 1;
      times[l][round] = now() - start;
    }
    times[MOST_LIBRARIES][round] = time_sort(8, 0);
    times[MOST_LIBRARIES + 1][round] = time_sort(11, 0);
    times[MOST_LIBRARIES + 2][round] = time_sort(11, 1);
    const double start = now();
    memcpy(gradient, logits, (size_t)n * 4);
    times[MOST_LIBRARIES + 3][round] = now() - start;
  }
  const double sort8 = median(times[MOST_LIBRARIES], rounds), sort11 = median(times[MOST_LIBRARIES + 1], rounds);
  const double early = median(times[MOST_LIBRARIES + 2], rounds), sort = sort8 < sort11 ? sort8 : sort11;
  printf("%d threads, %ld x %ld %s: sort by 8 bits %.3f ms, by 11 %.3f, asking early %.3f, copy on one thread %.3f\n",
         threads, (long)rows, (long)classes, type, sort8, sort11, early, median(times[MOST_LIBRARIES + 3], rounds));
  for (int l = 0; l < libraries; l++) {
    const double took = median(times[l], rounds);
    printf("  %s: %.3f ms, %.2f ns an element, %.2f sorts, %.2f that ask early, loss %.9g\n", argv[5 + l], took,
           took * 1e6 / (double)n, took / sort, took / early, (double)result[l]);
  }
  return 0;
}
