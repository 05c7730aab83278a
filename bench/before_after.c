/* SPDX-License-Identifier: Apache-2.0 */
/*
 * before_after WAY FOLDER LIBRARY...: every loss by each of several builds of libtare.so, on one thread, in f32 unless
 * its name says bf16, with its gradient. bench/before_after.py builds and runs it and makes the table. TARE_ISA chooses
 * the instruction set.
 *
 * times: the libraries take turns in one process, and a copy of the same bytes too; ns an element, the least of the
 * rounds. many: the same of 8 million elements, on two threads, by the clock on the wall. calls: two calls of each loss
 * by one library, for callgrind. count: instructions of one call, by single steps, which know every instruction set but
 * take 0.1 ms each. How often each address was run goes to FOLDER/LOSS.NUMBER.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tare.h"

enum {
  MOST_LIBRARIES = 4,
  COUNTED = 7680,
  STEPPED = 2560,
  TIMED = 400000,
  MANY = 8000000,
  MOST_CODE = 1 << 23,
  MOST_WORKSPACE = 1 << 29
};

typedef enum how {
  LABELS,
  BACKGROUND,
  BACKGROUND_NCHW,
  SCORES,
  TARGETS,
  HEATMAP,
  NCHW,
  WEIGHTS, /* of classes: class_weights, positive_weights, alpha_per_class; of elements */
  POSITIVE_WEIGHTS,
  ALPHAS,
  ELEMENT_WEIGHTS,
  ELEMENT_LOSSES, /* what is written beside the gradient */
  ROW_LOSSES,
  CLASS_SUMS,
  EXACT,
  BF16,
  BF16_BACKGROUND,
  BINS, /* targets of softmax losses */
  BIN_WEIGHTS
} how;

typedef struct loss_case {
  const char *name;
  tare_loss_kind kind;
  double gamma; /* or bins; below 0: the default */
  how how;
  int64_t classes;
} loss_case;

static const loss_case cases[] = {
    {"sigmoid-ce", TARE_LOSS_SIGMOID_CE, -1, LABELS, 80},
    {"sigmoid-ce,dense", TARE_LOSS_SIGMOID_CE, -1, TARGETS, 80},
    {"sigmoid-focal", TARE_LOSS_SIGMOID_FOCAL, 2, LABELS, 80},
    {"sigmoid-focal,gamma=0.5", TARE_LOSS_SIGMOID_FOCAL, 0.5, LABELS, 80},
    {"sigmoid-focal,gamma=3.7", TARE_LOSS_SIGMOID_FOCAL, 3.7, LABELS, 80},
    {"sigmoid-focal,dense", TARE_LOSS_SIGMOID_FOCAL, 2, TARGETS, 80},
    {"sigmoid-focal,1-class", TARE_LOSS_SIGMOID_FOCAL, 2, LABELS, 1},
    {"sigmoid-focal,3-classes", TARE_LOSS_SIGMOID_FOCAL, 2, LABELS, 3},
    {"sigmoid-focal,bf16", TARE_LOSS_SIGMOID_FOCAL, 2, BF16, 80},
    {"sigmoid-focal,scores", TARE_LOSS_SIGMOID_FOCAL, 2, SCORES, 80},
    {"sigmoid-focal,positive-weights", TARE_LOSS_SIGMOID_FOCAL, 2, POSITIVE_WEIGHTS, 80},
    {"sigmoid-focal,alpha-per-class", TARE_LOSS_SIGMOID_FOCAL, 2, ALPHAS, 80},
    {"sigmoid-focal,element-weights", TARE_LOSS_SIGMOID_FOCAL, 2, ELEMENT_WEIGHTS, 80},
    {"sigmoid-focal,element-losses", TARE_LOSS_SIGMOID_FOCAL, 2, ELEMENT_LOSSES, 80},
    {"sigmoid-focal,row-losses", TARE_LOSS_SIGMOID_FOCAL, 2, ROW_LOSSES, 80},
    {"sigmoid-focal,class-sums", TARE_LOSS_SIGMOID_FOCAL, 2, CLASS_SUMS, 80},
    {"class-balanced-focal", TARE_LOSS_SIGMOID_FOCAL, 2, WEIGHTS, 80},
    {"sigmoid-poly1", TARE_LOSS_SIGMOID_POLY1, -1, LABELS, 80},
    {"sigmoid-varifocal", TARE_LOSS_SIGMOID_VARIFOCAL, -1, SCORES, 80},
    {"sigmoid-quality-focal", TARE_LOSS_SIGMOID_QUALITY_FOCAL, -1, SCORES, 80},
    {"sigmoid-matchability", TARE_LOSS_SIGMOID_MATCHABILITY, -1, SCORES, 80},
    {"sigmoid-iou-aware", TARE_LOSS_SIGMOID_IOU_AWARE, -1, SCORES, 80},
    {"sigmoid-asymmetric", TARE_LOSS_SIGMOID_ASYMMETRIC, -1, LABELS, 80},
    {"sigmoid-heatmap-focal", TARE_LOSS_SIGMOID_HEATMAP_FOCAL, -1, HEATMAP, 80},
    {"sigmoid-reduced-focal", TARE_LOSS_SIGMOID_REDUCED_FOCAL, -1, LABELS, 80},
    {"sigmoid-focal-star", TARE_LOSS_SIGMOID_FOCAL_STAR, -1, LABELS, 80},
    {"sigmoid-focal,gamma=0.5,dense", TARE_LOSS_SIGMOID_FOCAL, 0.5, TARGETS, 80},
    {"sigmoid-focal,gamma=1,dense", TARE_LOSS_SIGMOID_FOCAL, 1, TARGETS, 80},
    {"sigmoid-focal,gamma=3.7,dense", TARE_LOSS_SIGMOID_FOCAL, 3.7, TARGETS, 80},
    {"sigmoid-poly1,dense", TARE_LOSS_SIGMOID_POLY1, -1, TARGETS, 80},
    {"sigmoid-varifocal,dense", TARE_LOSS_SIGMOID_VARIFOCAL, -1, TARGETS, 80},
    {"sigmoid-quality-focal,dense", TARE_LOSS_SIGMOID_QUALITY_FOCAL, -1, TARGETS, 80},
    {"sigmoid-matchability,dense", TARE_LOSS_SIGMOID_MATCHABILITY, -1, TARGETS, 80},
    {"sigmoid-iou-aware,dense", TARE_LOSS_SIGMOID_IOU_AWARE, -1, TARGETS, 80},
    {"sigmoid-asymmetric,dense", TARE_LOSS_SIGMOID_ASYMMETRIC, -1, TARGETS, 80},
    {"sigmoid-heatmap-focal,dense", TARE_LOSS_SIGMOID_HEATMAP_FOCAL, -1, TARGETS, 80},
    {"sigmoid-reduced-focal,dense", TARE_LOSS_SIGMOID_REDUCED_FOCAL, -1, TARGETS, 80},
    {"sigmoid-focal-star,dense", TARE_LOSS_SIGMOID_FOCAL_STAR, -1, TARGETS, 80},
    {"softmax-ce", TARE_LOSS_SOFTMAX_CE, -1, LABELS, 80},
    {"softmax-ce,3-classes", TARE_LOSS_SOFTMAX_CE, -1, LABELS, 3},
    {"softmax-ce,2-classes", TARE_LOSS_SOFTMAX_CE, -1, LABELS, 2},
    {"softmax-ce,1-class", TARE_LOSS_SOFTMAX_CE, -1, LABELS, 1},
    {"softmax-ce,nchw", TARE_LOSS_SOFTMAX_CE, -1, NCHW, 80},
    {"softmax-ce,background", TARE_LOSS_SOFTMAX_CE, -1, BACKGROUND, 80},
    {"softmax-ce,background-nchw", TARE_LOSS_SOFTMAX_CE, -1, BACKGROUND_NCHW, 80},
    {"softmax-ce,bf16", TARE_LOSS_SOFTMAX_CE, -1, BF16, 80},
    {"softmax-ce,20-classes", TARE_LOSS_SOFTMAX_CE, -1, LABELS, 20},
    {"softmax-ce,20-classes,bf16", TARE_LOSS_SOFTMAX_CE, -1, BF16, 20},
    {"softmax-ce,background-bf16", TARE_LOSS_SOFTMAX_CE, -1, BF16_BACKGROUND, 80},
    {"softmax-ce,row-losses", TARE_LOSS_SOFTMAX_CE, -1, ROW_LOSSES, 80},
    {"softmax-ce,class-sums", TARE_LOSS_SOFTMAX_CE, -1, CLASS_SUMS, 80},
    {"softmax-ce,dense", TARE_LOSS_SOFTMAX_CE, -1, TARGETS, 80},
    {"softmax-focal", TARE_LOSS_SOFTMAX_FOCAL, 2, LABELS, 80},
    {"softmax-logit-adjusted", TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, -1, LABELS, 80},
    {"softmax-seesaw", TARE_LOSS_SOFTMAX_SEESAW, -1, LABELS, 80},
    {"softmax-distribution-focal", TARE_LOSS_SOFTMAX_DISTRIBUTION_FOCAL, -1, BINS, 16},
    {"softmax-two-hot", TARE_LOSS_SOFTMAX_TWO_HOT, -1, BIN_WEIGHTS, 32},
    {"softmax-ldam", TARE_LOSS_SOFTMAX_LDAM, -1, LABELS, 80},
    {"ghm-c,10-bins", TARE_LOSS_GHM_C, 10, LABELS, 80},
    {"ghm-c,30-bins", TARE_LOSS_GHM_C, 30, LABELS, 80},
    {"ghm-c,30-bins,dense", TARE_LOSS_GHM_C, 30, TARGETS, 80},
    {"ghm-c,1024-bins", TARE_LOSS_GHM_C, 1024, LABELS, 80},
    {"ghm-c,exact", TARE_LOSS_GHM_C, 0, EXACT, 80},
    {"ghm-r,10-bins", TARE_LOSS_GHM_R, 10, TARGETS, 4},
};

typedef struct library {
  tare_context *context;
  tare_status (*evaluate)(tare_context *, const tare_loss_spec *, const tare_batch *, const tare_output *, tare_stream);
  char *base;
} library;

static float logits[MANY], gradient[MANY], targets[MANY], scores[2 * MANY], losses[MANY], ones[80], loss;
static uint16_t logits_bf16[MANY];
static int32_t labels[MANY];
static tare_class_sums class_sums[80];
static int is_wall_clock;
static size_t half_of_bytes;
static unsigned steps_at[MOST_CODE];

_Noreturn static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static library open_library(const char *path, int threads) {
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) fail(dlerror());
  library opened = {0};
  *(void **)&opened.evaluate = dlsym(handle, "tare_evaluate");
  tare_status (*create)(tare_context **, const tare_context_options *);
  *(void **)&create = dlsym(handle, "tare_context_create");
  Dl_info info;
  dladdr(*(void **)&create, &info);
  opened.base = info.dli_fbase;
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU;
  options.threads = threads;
  if (create(&opened.context, &options) != TARE_STATUS_OK) fail(path);
  tare_status (*lend)(tare_context *, void *, uint64_t);
  *(void **)&lend = dlsym(handle, "tare_context_set_workspace");
  static void *workspace; /* of the exact density: pages that are never touched cost nothing */
  if (!workspace) workspace = aligned_alloc(64, MOST_WORKSPACE);
  if (!workspace || lend(opened.context, workspace, MOST_WORKSPACE)) fail("workspace");
  return opened;
}

static double uniform(void) {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(state >> 11) * 0x1p-53;
}

/** Sigmoid losses: logits N(-4.6, 1.5), 0.5 % of the rows with a class; softmax losses: N(0, 1.5), all rows. */
static void draw(const loss_case *c, int64_t rows, int is_softmax) {
  const double mean = is_softmax || c->kind == TARE_LOSS_GHM_R ? 0 : -4.6;
  for (int64_t i = 0; i < rows * c->classes; i++) {
    logits[i] = (float)(mean + 1.5 * sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform()));
    const double kind = uniform();
    targets[i] = (float)(kind < 0.45 ? 0 : kind < 0.5 ? 1 : uniform());
    if (c->how == HEATMAP) targets[i] = (float)(kind < 0.0005 ? 1 : kind < 0.005 ? kind * 150 : 0);
    uint32_t bits;
    memcpy(&bits, &logits[i], sizeof bits);
    logits_bf16[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    if (c->kind == TARE_LOSS_GHM_R) targets[i] = logits[i] + 0.05F * (float)(2 * kind - 1);
    gradient[i] = 0;
  }
  for (int64_t i = 0; i < rows; i++) {
    const int32_t of_class = (int32_t)(uniform() * (double)(c->classes - (c->how >= BINS)));
    const int is_background = c->how == BACKGROUND || c->how == BACKGROUND_NCHW || c->how == BF16_BACKGROUND;
    const int has_class = is_background ? uniform() < 0.02 : is_softmax || uniform() < 0.005;
    labels[i] = has_class ? of_class : -1;
    const double score = uniform();
    scores[c->how == BIN_WEIGHTS ? 2 * i : i] = (float)(c->how == BINS ? score * 15 : score);
    if (c->how == BIN_WEIGHTS) scores[2 * i + 1] = (float)(1 - score);
  }
}

static void set_loss(const loss_case *c, tare_loss_spec *spec) {
  tare_loss_spec_init(spec, c->kind);
  if (c->kind == TARE_LOSS_SIGMOID_FOCAL || c->kind == TARE_LOSS_SOFTMAX_FOCAL) spec->focal.gamma = c->gamma;
  if (c->kind == TARE_LOSS_GHM_C || c->kind == TARE_LOSS_GHM_R) {
    spec->ghm.bins = c->how == EXACT ? spec->ghm.bins : (int32_t)c->gamma;
    spec->ghm.density = c->how == EXACT ? TARE_GHM_DENSITY_EXACT : TARE_GHM_DENSITY_UNIT_REGION;
  }
  if (c->how == ALPHAS) spec->focal.alpha_per_class = ones;
  if (c->kind == TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED) spec->logit_adjusted.offset = ones;
  if (c->kind == TARE_LOSS_SOFTMAX_SEESAW) spec->seesaw.log_counts = ones;
  if (c->kind == TARE_LOSS_SOFTMAX_LDAM) spec->ldam.margins = ones;
}

static tare_status evaluate(const loss_case *c, int64_t rows, const library *by) {
  tare_loss_spec spec;
  set_loss(c, &spec);
  tare_level level;
  if (c->how == NCHW || c->how == BACKGROUND_NCHW)
    tare_level_init_nchw(&level, 1, c->classes, 8, rows / 8);
  else
    tare_level_init_rows(&level, rows, c->classes);
  const int is_bf16 = c->how == BF16 || c->how == BF16_BACKGROUND;
  level.logits = is_bf16 ? (const void *)logits_bf16 : logits;
  level.gradient = gradient;
  level.labels = c->how == BINS ? NULL : labels;
  if (c->how == TARGETS || c->how == HEATMAP) level.targets = targets;
  if (c->how == SCORES || c->how >= BINS) level.scores = scores;
  if (c->how == ELEMENT_WEIGHTS) level.element_weights = targets;
  if (c->how == ELEMENT_LOSSES) level.element_loss = losses;
  if (c->how == ROW_LOSSES) level.row_loss = losses;
  tare_batch batch;
  tare_batch_init(&batch);
  batch.levels = &level;
  batch.level_count = 1;
  batch.classes = c->classes;
  batch.dtype = is_bf16 ? TARE_DTYPE_BF16 : TARE_DTYPE_F32;
  if (c->how == WEIGHTS) batch.class_weights = ones;
  if (c->how == POSITIVE_WEIGHTS) batch.positive_weights = ones;
  tare_output output;
  tare_output_init(&output);
  output.loss = &loss;
  if (c->how == CLASS_SUMS) output.class_sums = class_sums;
  return by->evaluate(by->context, &spec, &batch, &output, NULL);
}

static double nanoseconds(void) {
  struct timespec now;
  clock_gettime(is_wall_clock ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/** Copies half of the bytes to the gradient. */
static void *copy_half(void *from) {
  memcpy((char *)gradient + ((char *)from - (char *)logits), from, half_of_bytes);
  return NULL;
}

/** A copy of the logits, by as many threads as the calls have. */
static void copy_logits(const loss_case *c, int64_t elements) {
  const int is_bf16 = c->how == BF16 || c->how == BF16_BACKGROUND;
  half_of_bytes = (size_t)elements * (is_bf16 ? 2 : 4) / 2;
  char *second = (char *)logits + half_of_bytes;
  pthread_t thread;
  if (is_wall_clock && pthread_create(&thread, NULL, copy_half, second)) fail("thread");
  copy_half(logits);
  if (is_wall_clock)
    pthread_join(thread, NULL);
  else
    copy_half(second);
}

static void time_case(const loss_case *c, int64_t rows, const library *by, int count) {
  double least[MOST_LIBRARIES + 1];
  for (int i = 0; i <= count; i++) least[i] = INFINITY;
  for (int round = 0; round < 25; round++) {
    for (int i = 0; i <= count; i++) {
      const double start = nanoseconds();
      if (i == count)
        copy_logits(c, rows * c->classes);
      else if (evaluate(c, rows, &by[i]) != TARE_STATUS_OK)
        fail(c->name);
      least[i] = fmin(least[i], (nanoseconds() - start) / (double)(rows * c->classes));
    }
  }
  printf("%s", c->name);
  for (int i = 0; i <= count; i++) printf(" %.4f", least[i]);
  printf("\n");
  fflush(stdout);
}

static void write_steps(const char *folder, const char *name, int number) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s.%d", folder, name, number);
  FILE *file = fopen(path, "w");
  if (!file) fail(path);
  for (int k = 0; k < MOST_CODE; k++)
    if (steps_at[k]) fprintf(file, "%x %u\n", (unsigned)k, steps_at[k]);
  fclose(file);
}

/** Instructions of the library in the second call of a child. The first one grows scratch. */
static long count_case(const loss_case *c, int64_t rows, const library *by) {
  memset(steps_at, 0, sizeof steps_at);
  const pid_t child = fork();
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    if (evaluate(c, rows, by) != TARE_STATUS_OK) _exit(1);
    raise(SIGSTOP);
    evaluate(c, rows, by);
    raise(SIGSTOP);
    _exit(0);
  }
  int status;
  long steps = 0;
  if (waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status)) fail(c->name);
  do {
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, child, NULL, &registers)) fail("ptrace");
    const uint64_t at = registers.rip - (uint64_t)(uintptr_t)by->base;
    if (at < MOST_CODE) steps_at[at]++, steps++;
    if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) || waitpid(child, &status, 0) < 0) fail("ptrace");
  } while (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return steps;
}

int main(int argument_count, char **arguments) {
  const int count = argument_count - 3;
  is_wall_clock = argument_count > 3 && strcmp(arguments[1], "many") == 0;
  const int times = is_wall_clock || (argument_count > 3 && strcmp(arguments[1], "times") == 0);
  library libraries[MOST_LIBRARIES];
  cpu_set_t here; /* one processor: single steps switch between two processes */
  CPU_ZERO(&here);
  CPU_SET((unsigned)sched_getcpu(), &here);
  if (strcmp(arguments[1], "count") == 0) sched_setaffinity(0, sizeof here, &here);
  if (count < 1 || count > MOST_LIBRARIES) fail("before_after times|many|calls|count FOLDER LIBRARY...");
  for (int i = 0; i < count; i++) libraries[i] = open_library(arguments[i + 3], is_wall_clock ? 2 : 1);
  const int64_t elements = is_wall_clock                        ? MANY
                           : times                              ? TIMED
                           : strcmp(arguments[1], "calls") == 0 ? COUNTED
                                                                : STEPPED;
  for (int k = 0; k < 80; k++) ones[k] = 1;
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    const loss_case *c = &cases[k];
    const int64_t rows = elements / c->classes;
    draw(c, rows, strncmp(c->name, "softmax", 7) == 0);
    if (times) {
      time_case(c, rows, libraries, count);
      continue;
    }
    if (strcmp(arguments[1], "calls") == 0) {
      if (evaluate(c, rows, libraries) || evaluate(c, rows, libraries)) fail(c->name);
      printf("%s\n", c->name);
      continue;
    }
    printf("%s", c->name);
    for (int i = 0; i < count; i++) {
      printf(" %.3f", (double)count_case(c, rows, &libraries[i]) / (double)(rows * c->classes));
      write_steps(arguments[2], c->name, i);
    }
    printf("\n");
    fflush(stdout);
  }
}
