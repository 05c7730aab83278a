/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exact gradient density: GD(g) = #{k: |g_k - g| <= eps/2} over the length of that window inside [0,1].
 *
 * Each element has a key, the signed logit (which has more resolution than g near 1) or |difference|, and a place: its
 * number in the order of tiles. A word is both, the key in the upper bits. Words are sorted. Then both ends of the
 * window only ever move up, and the place says where the element's 1/GD belongs. So nobody searches.
 *
 * Logits of up to 32 bits fit into a word whole. Of a key in double only the upper half does. The keys themselves stay
 * in the order of places meanwhile, and settle those words whose upper halves are equal.
 */
#include "exact.h"

#include <stdatomic.h>
#include <string.h>

#include "radix_sort.h"
#include "threads.h"
#include "windows.h"

enum { PIECE = 8192, BLOCK = 512, SHORT_RUN = 32 };

typedef struct exact_density {
  const tare_problem *problem;
  void (*find_norms)(int32_t n, const double *restrict logit, double *restrict norm);
  int32_t is_whole, place_bits; /* whether words hold whole keys */
  int32_t is_single;            /* weights are floats */
  int64_t given, n;             /* places; sorted words */
  uint64_t *key;                /* [given], by place, of words that are not whole: as ordered bits */
  uint64_t *word, *spare;       /* [n] */
  double *norm;                 /* [n], sorted */
  void *weight;                 /* [given], by place: 1/GD */
  _Atomic int32_t has_long_runs;
} exact_density;

/** [0, n) in pieces, which do not depend on the number of threads. */
static void share_pieces(const tare_cpu *cpu, int64_t n, tare_piece_function *work, exact_density *density) {
  tare_share(cpu->threads, (n + PIECE - 1) / PIECE, work, density);
}

static int64_t end_of(int64_t piece, int64_t n) { return (piece + 1) * PIECE < n ? (piece + 1) * PIECE : n; }

static int64_t place_of(const exact_density *density, uint64_t word) {
  return (int64_t)(word & ((UINT64_C(1) << density->place_bits) - 1));
}

/* Words of keys in double. */

static void make_words(void *argument, int64_t piece, int32_t thread) {
  exact_density *density = argument;
  (void)thread;
  for (int64_t i = piece * PIECE; i < end_of(piece, density->given); i++) {
    const uint64_t key = density->key[i];
    density->word[i] = key == TARE_NO_WORD ? key : key >> density->place_bits << density->place_bits | (uint64_t)i;
  }
}

/** Another thread may be settling the run that the word belongs to, which leaves its upper half. */
static uint64_t upper_of(const exact_density *density, int64_t i) {
  return __atomic_load_n(&density->word[i], __ATOMIC_RELAXED) >> density->place_bits;
}

static void set_word(const exact_density *density, int64_t i, uint64_t word) {
  __atomic_store_n(&density->word[i], word, __ATOMIC_RELAXED);
}

static int64_t end_of_run(const exact_density *density, int64_t i) {
  const uint64_t upper = upper_of(density, i);
  do i++;
  while (i < density->n && upper_of(density, i) == upper);
  return i;
}

/** By insertion. */
static void settle_short_run(const exact_density *density, int64_t start, int64_t end) {
  const uint64_t *word = density->word;
  for (int64_t i = start + 1; i < end; i++) {
    const uint64_t moved = word[i], key = density->key[place_of(density, moved)];
    int64_t at = i;
    for (; at > start && density->key[place_of(density, word[at - 1])] > key; at--) set_word(density, at, word[at - 1]);
    if (at < i) set_word(density, at, moved);
  }
}

/** Runs that start in a piece. */
static void settle_piece(void *argument, int64_t piece, int32_t thread) {
  exact_density *density = argument;
  int64_t i = piece * PIECE;
  const int64_t end = end_of(piece, density->n);
  (void)thread;
  while (i > 0 && i < end && upper_of(density, i) == upper_of(density, i - 1)) i++;
  while (i < end) {
    const int64_t next = end_of_run(density, i);
    if (next - i > SHORT_RUN)
      atomic_store(&density->has_long_runs, 1);
    else if (next - i > 1)
      settle_short_run(density, i, next);
    i = next;
  }
}

/** Sorts a long run by the lower halves of its keys: with 2^32 places or more, without the last bits, which are less
 *  than a norm's error. The words lose their upper halves. */
static void settle_long_run(const tare_cpu *cpu, const exact_density *density, int64_t start, int64_t end) {
  const int32_t bits = density->place_bits;
  uint64_t *const run = density->word + start;
  for (int64_t i = 0; i < end - start; i++) {
    const uint64_t place = (uint64_t)place_of(density, run[i]);
    run[i] = density->key[place] << (64 - bits) >> bits << bits | place;
  }
  tare_sort sort = {.threads = cpu->threads,
                    .first_bit = bits,
                    .n = end - start,
                    .word = run,
                    .spare = density->spare + start,
                    .tables = cpu->digit_tables};
  tare_sort_words(&sort);
  if (sort.word != run) memcpy(run, sort.word, (size_t)sort.n * sizeof *run);
}

/** Puts words in order whose upper halves are equal. Such runs are short, unless many keys are nearly the same. */
static void settle_runs(const tare_cpu *cpu, exact_density *density) {
  share_pieces(cpu, density->n, settle_piece, density);
  if (!atomic_load(&density->has_long_runs)) return;
  for (int64_t start = 0, end; start < density->n; start = end) {
    end = end_of_run(density, start);
    if (end - start > SHORT_RUN) settle_long_run(cpu, density, start, end);
  }
}

/* Norms and weights. */

static double double_of(uint64_t ordered) {
  const uint64_t bits = ordered >> 63 ? ordered ^ UINT64_C(1) << 63 : ~ordered;
  double key;
  memcpy(&key, &bits, sizeof key);
  return key;
}

static float float_of(uint32_t ordered) {
  const uint32_t bits = ordered >> 31 ? ordered ^ UINT32_C(1) << 31 : ~ordered;
  float key;
  memcpy(&key, &bits, sizeof key);
  return key;
}

/** Of words that are not whole, those of the block that follows are asked for early, as their places are anywhere. */
static void read_keys(const exact_density *density, int64_t start, int32_t n, double *key) {
  const uint64_t *word = density->word + start;
  const int64_t left = density->n - start - n;
  if (density->is_whole) {
    for (int32_t i = 0; i < n; i++) key[i] = (double)float_of((uint32_t)(word[i] >> 32));
    return;
  }
  for (int32_t i = 0; i < n; i++) {
    if (i < left) __builtin_prefetch(&density->key[place_of(density, word[n + i])], 0);
    key[i] = double_of(density->key[place_of(density, word[i])]);
  }
}

/** Gradient norms, folded. */
static void find_norms(void *argument, int64_t piece, int32_t thread) {
  const exact_density *density = argument;
  const double mu = density->problem->loss.ghm.mu;
  const int64_t end = end_of(piece, density->n);
  double key[BLOCK];
  (void)thread;
  for (int64_t start = piece * PIECE; start < end; start += BLOCK) {
    const int32_t n = (int32_t)(end - start < BLOCK ? end - start : BLOCK);
    read_keys(density, start, n, key);
    if (density->problem->loss.kind == TARE_LOSS_GHM_R)
      for (int32_t i = 0; i < n; i++) density->norm[start + i] = tare_norm_of_difference(key[i], mu);
    else
      density->find_norms(n, key, density->norm + start);
  }
}

/** Places are anywhere. Those of the block that follows are asked for early. */
static void write_weights(const exact_density *density, int64_t start, int32_t n, const double *weight) {
  const uint64_t *word = density->word + start;
  const int64_t left = density->n - start - n;
  const int32_t size = density->is_single ? (int32_t)sizeof(float) : (int32_t)sizeof(double);
  for (int32_t i = 0; i < (left < n ? (int32_t)left : n); i++)
    __builtin_prefetch((char *)density->weight + place_of(density, word[n + i]) * size, 1);
  if (density->is_single) {
    float *to = density->weight;
    for (int32_t i = 0; i < n; i++) to[place_of(density, word[i])] = (float)weight[i];
  } else {
    double *to = density->weight;
    for (int32_t i = 0; i < n; i++) to[place_of(density, word[i])] = weight[i];
  }
}

static void weigh_piece(void *argument, int64_t piece, int32_t thread) {
  const exact_density *density = argument;
  const double *norm = density->norm, half = density->problem->loss.ghm.epsilon / 2;
  const int64_t first = piece * PIECE, end = end_of(piece, density->n);
  norm_window at = find_window(norm, density->n, half, first);
  double weight[WINDOWS];
  (void)thread;
  for (int64_t start = first; start < end; start += WINDOWS) {
    const int32_t n = (int32_t)(end - start < WINDOWS ? end - start : WINDOWS);
    count_in_windows(norm, density->n, half, norm + start, n, &at, weight);
    for (int32_t i = 0; i < n; i++) weight[i] = tare_window_length(norm[start + i], half) / weight[i];
    write_weights(density, start, n, weight);
  }
}

/* All of it. */

static int32_t place_bits_of(int64_t places) {
  int32_t bits = 32;
  while (places >> bits) bits++;
  return bits;
}

/** The first bit of a word that may differ. Half types, read as floats, have zeros at the end, or ones below 0. */
static int32_t first_bit_of(const exact_density *density) {
  const int32_t dtype = density->problem->batch.dtype;
  if (!density->is_whole) return density->place_bits;
  return dtype == TARE_DTYPE_BF16 ? 48 : dtype == TARE_DTYPE_F16 ? 45 : 32;
}

static void sort_words(const tare_cpu *cpu, exact_density *density) {
  tare_sort sort = {.threads = cpu->threads,
                    .first_bit = first_bit_of(density),
                    .n = density->given,
                    .word = density->word,
                    .spare = density->spare,
                    .tables = cpu->digit_tables};
  tare_sort_words(&sort);
  density->n = sort.n;
  density->word = sort.word;
  density->spare = sort.spare;
}

/** Where things lie. Words of whole keys begin in the room of the keys. */
static void place_arrays(const tare_plan *plan, exact_density *density) {
  uint64_t *const first = (uint64_t *)(void *)plan->key, *const second = (uint64_t *)(void *)plan->weight;
  uint64_t *const third = (uint64_t *)(void *)plan->spare;
  density->key = first;
  density->word = density->is_whole ? first : second;
  density->spare = density->is_whole ? second : third;
  density->weight = density->is_whole ? third : first;
}

void tare_cpu_use_exact_density(tare_cpu *cpu, const tare_tiling *tiling, const tare_plan *plan, tare_job *job) {
  const tare_problem *problem = plan->problem;
  const int is_regression = problem->family == TARE_LOSS_FAMILY_REGRESSION;
  job->density = TARE_DENSITY_USE_EXACT;
  if (!plan->keys) return; /* nor is there a workspace */
  exact_density density = {.problem = problem,
                           .find_norms = cpu->kernels->all->in_double.find_norms,
                           .place_bits = place_bits_of(plan->keys),
                           .is_single = !is_regression && problem->batch.dtype != TARE_DTYPE_F64,
                           .given = plan->keys};
  density.is_whole = density.is_single && !problem->soft && density.place_bits == 32;
  place_arrays(plan, &density);
  const tare_job collect = {
      .problem = problem, .pass = TARE_PASS_COLLECT, .key = density.key, .collects_words = density.is_whole};
  tare_cpu_run_pass(cpu, tiling, &collect);
  if (!density.is_whole) share_pieces(cpu, density.given, make_words, &density);
  sort_words(cpu, &density);
  if (!density.is_whole) settle_runs(cpu, &density);
  density.norm = (double *)(void *)density.spare;
  share_pieces(cpu, density.n, find_norms, &density);
  share_pieces(cpu, density.n, weigh_piece, &density);
  job->inverse_density = density.weight;
}
