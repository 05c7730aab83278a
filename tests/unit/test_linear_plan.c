/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan of a fused head and its loop over chunks: parts that fit, steps in their order, and no product formed twice
 * that could be kept. Products of the CPU's BLAS are counted where the library looks its function up.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/linear_chunks.h"
#include "cpu/blas.h"
#include "support/head.h"

/* ---- Parts of the workspace -------------------------------------------------------------------------------------- */

enum { CLASSES = 10, DIMENSIONS = 7, MOST_BYTES = 1 << 18 };
static char memory[MOST_BYTES + 256];

/** A backend that has every part. */
static tare_linear_needs some_needs(int aligns_first) {
  tare_linear_needs n = {
      .step_rows = 32, .ample_rows = 100, .alignment = 64, .aligns_first = aligns_first, .ample_blas = 4096};
  for (int part = 0; part < TARE_PART_COUNT; part++)
    n.size[part] = (tare_part_size){.fixed = 12u * (unsigned)part, .of_row = 4, .of_step = 8};
  n.size[TARE_PART_BLAS] = (tare_part_size){.fixed = 500};
  n.size[TARE_PART_APART] = (tare_part_size){.fixed = 0};
  return n;
}

static uint64_t bytes_of(const tare_linear_plan *plan, const tare_linear_needs *needs, int part) {
  const tare_part_size *size = &needs->size[part];
  if (part == TARE_PART_BLAS) return plan->blas_bytes;
  if (part == TARE_PART_LOGITS) return 4 * CLASSES * (uint64_t)plan->kept_rows;
  if (part == TARE_PART_CLASS_SUMS) return 0;
  const int64_t steps = (plan->chunk_rows + needs->step_rows - 1) / needs->step_rows;
  return size->fixed + size->of_row * (uint64_t)plan->chunk_rows + size->of_step * (uint64_t)steps;
}

/** Every part lies behind the one before, in the workspace. */
static void check_parts(const tare_linear_plan *plan, const tare_linear_needs *needs, const char *workspace,
                        uint64_t bytes) {
  const char *end = workspace;
  for (int part = 0; part < TARE_PART_COUNT; part++) {
    const char *start = plan->part[part];
    const uint64_t size = bytes_of(plan, needs, part);
    cr_assert_eq(start == NULL, size == 0, "part %d has %llu bytes", part, (unsigned long long)size);
    if (start == NULL) continue;
    cr_assert(start >= end, "part %d begins before the one before ends", part);
    const char *first = needs->aligns_first ? NULL : workspace;
    cr_assert_eq((uintptr_t)(start - first) % needs->alignment, 0, "part %d is not aligned", part);
    end = start + size;
  }
  cr_assert(end <= workspace + bytes, "the parts end %lld bytes after the workspace",
            (long long)(end - workspace - (int64_t)bytes));
}

static void check_rows(const tare_linear_plan *plan, const tare_linear_needs *needs) {
  const int64_t all = plan->problem->rows;
  cr_assert(plan->chunk_rows >= 1 && plan->chunk_rows <= all);
  cr_assert(plan->chunk_rows == all || plan->chunk_rows % needs->step_rows == 0, "%lld", (long long)plan->chunk_rows);
  cr_assert(plan->kept_rows == all || plan->kept_rows % plan->chunk_rows == 0, "%lld", (long long)plan->kept_rows);
  if (!plan->measures) cr_assert_eq(plan->kept_rows, plan->chunk_rows);
}

/** Every size of workspace, from too little to enough for all logits. */
static void check_sizes(int64_t rows, int aligns_first, int measures, size_t offset) {
  const tare_linear_needs needs = some_needs(aligns_first);
  const tare_problem batch = {.rows = rows, .batch = {.classes = CLASSES}};
  const tare_linear linear = {.dimensions = DIMENSIONS};
  tare_linear_plan plan = {.problem = &batch, .linear = &linear, .measures = measures};
  int64_t kept_rows = 0;
  char *workspace = memory + 16 * offset;
  uint64_t least, ample;
  tare_error error;
  tare_linear_plan_sizes(&needs, &batch, &least, &ample);
  const uint64_t whole = ample + 4 * CLASSES * (uint64_t)rows;
  cr_assert(least <= ample && whole + 64 < MOST_BYTES);
  cr_assert_eq(tare_linear_plan_make(&plan, &needs, workspace, least - 1, &error), TARE_STATUS_WORKSPACE_TOO_SMALL);
  cr_assert_not_null(strstr(error.text, "tare_linear_workspace_size"), "%s", error.text);
  for (uint64_t bytes = least; bytes <= whole; bytes += bytes < ample ? 7 : 97) {
    cr_assert_eq(tare_linear_plan_make(&plan, &needs, workspace, bytes, &error), TARE_STATUS_OK, "%s", error.text);
    check_parts(&plan, &needs, workspace, bytes);
    check_rows(&plan, &needs);
    if (bytes < ample) continue;
    cr_assert_eq(plan.chunk_rows, rows <= 100 ? rows : 96, "beyond ample chunks get no larger");
    cr_assert(plan.kept_rows >= kept_rows, "%llu bytes keep fewer rows", (unsigned long long)bytes);
    kept_rows = plan.kept_rows;
  }
  cr_assert_eq(tare_linear_plan_make(&plan, &needs, workspace, whole, &error), TARE_STATUS_OK, "%s", error.text);
  cr_assert_eq(plan.kept_rows, measures ? rows : plan.chunk_rows);
  cr_assert_eq(plan.blas_bytes, 4096);
}

Test(linear_plan, parts_fit_into_every_workspace) {
  static const int64_t rows[] = {1, 31, 32, 33, 100, 101, 333, 1000};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    for (int how = 0; how < 8; how++) check_sizes(rows[i], how & 1, how & 2, how & 4 ? 3 : 0);
}

/* 256 rows are a slice. The first one's sums are the output, and those of a chunk's other slices have a place each. */
Test(linear_plan, class_sums_of_a_chunk) {
  static tare_class_sums sums[CLASSES];
  const tare_linear_needs needs = {.step_rows = 256, .ample_rows = 1024, .alignment = 64};
  tare_problem batch = {.rows = 3000, .batch = {.classes = CLASSES}};
  const tare_linear linear = {.dimensions = DIMENSIONS};
  tare_linear_plan plan = {.problem = &batch, .linear = &linear};
  uint64_t least[2], ample[2];
  tare_error error;
  tare_linear_plan_sizes(&needs, &batch, &least[0], &ample[0]);
  batch.output.class_sums = sums;
  tare_linear_plan_sizes(&needs, &batch, &least[1], &ample[1]);
  cr_assert(least[1] == least[0] && ample[1] == ample[0] + 3 * sizeof sums, "%llu", (unsigned long long)ample[1]);
  for (uint64_t bytes = least[1]; bytes <= ample[1]; bytes += 8) {
    cr_assert_eq(tare_linear_plan_make(&plan, &needs, memory, bytes, &error), TARE_STATUS_OK, "%s", error.text);
    const uint64_t of_sums = ((uint64_t)plan.chunk_rows / 256 - 1) * sizeof sums;
    const char *const logits = plan.part[TARE_PART_LOGITS], *const first = plan.part[TARE_PART_CLASS_SUMS];
    cr_assert(of_sums == 0 ? first == NULL : first == memory && logits >= first + of_sums);
    cr_assert(logits + 4 * CLASSES * (uint64_t)plan.chunk_rows <= memory + bytes);
  }
  cr_assert_eq(plan.chunk_rows, 1024);
}

Test(linear_plan, no_rows_need_no_workspace) {
  const tare_linear_needs needs = some_needs(1);
  const tare_problem batch = {.batch = {.classes = CLASSES}};
  uint64_t least = 1, ample = 1;
  tare_linear_plan_sizes(&needs, &batch, &least, &ample);
  cr_assert(least == 0 && ample == 0);
}

/* ---- The order of the steps -------------------------------------------------------------------------------------- */

/** Steps that write a letter each, and the chunk's first row. Number `fails_at` fails. */
typedef struct record {
  char text[512];
  int steps, fails_at;
} record;

static tare_status note(record *r, const char *what, const tare_linear_chunk *k) {
  const size_t used = strlen(r->text);
  char place[64] = "";
  if (k != NULL)
    snprintf(place, sizeof place, "%lld%s%s", (long long)k->first, k->follows ? "" : "<", k->goes_on ? "" : ">");
  snprintf(r->text + used, sizeof r->text - used, "%s%s ", what, place);
  return r->steps++ == r->fails_at ? TARE_STATUS_CUDA_ERROR : TARE_STATUS_OK;
}

static tare_status note_labels(void *r) { return note(r, "labels", NULL); }
static tare_status note_logits(void *r, const tare_linear_chunk *k) { return note(r, "X", k); }
static tare_status note_measure(void *r, const tare_linear_chunk *k) { return note(r, "m", k); }
static tare_status note_settle(void *r) { return note(r, "settle", NULL); }
static tare_status note_evaluate(void *r, const tare_linear_chunk *k) { return note(r, "e", k); }
static tare_status note_fold(void *r, const tare_linear_chunk *k) { return note(r, "b", k); }
static tare_status note_weights(void *r, const tare_linear_chunk *k) { return note(r, "W", k); }
static tare_status note_features(void *r, const tare_linear_chunk *k) { return note(r, "D", k); }
static tare_status note_finish(void *r) { return note(r, "end", NULL); }

static const tare_linear_steps noted = {note_labels, note_logits,  note_measure,  note_settle, note_evaluate,
                                        note_fold,   note_weights, note_features, note_finish};

/** 25 rows in chunks of 10. */
static record run_noted(int measures, int64_t kept_rows, int gradients, int fails_at) {
  static float logits[25 * CLASSES], gradient[1];
  tare_problem batch = {.rows = 25, .batch = {.classes = CLASSES}, .level_count = 1};
  tare_linear linear = {.dimensions = DIMENSIONS};
  if (gradients) linear.features_gradient = linear.weights_gradient = gradient;
  const tare_linear_plan plan = {.problem = &batch,
                                 .linear = &linear,
                                 .chunk_rows = 10,
                                 .kept_rows = kept_rows,
                                 .measures = measures,
                                 .has_gradient = gradients,
                                 .part = {[TARE_PART_LOGITS] = logits}};
  record r = {.fails_at = fails_at};
  const tare_status status = tare_linear_evaluate_chunks(&plan, &noted, &r);
  cr_assert_eq(status, fails_at < 0 ? TARE_STATUS_OK : TARE_STATUS_CUDA_ERROR);
  return r;
}

static void expect_steps(int measures, int64_t kept_rows, int gradients, const char *want) {
  const record r = run_noted(measures, kept_rows, gradients, -1);
  cr_assert_str_eq(r.text, want, "%s", r.text);
}

Test(linear_plan, steps_in_their_order) {
  expect_steps(0, 10, 0, "labels settle X0< e0< X10 e10 X20> e20> end ");
  expect_steps(0, 10, 1, "labels settle X0< e0< b0< W0< D0< X10 e10 b10 W10 D10 X20> e20> b20> W20> D20> end ");
  expect_steps(1, 10, 0, "labels X20< m20< X10 m10 X0> m0> settle e0< X10 e10 X20> e20> end ");
  expect_steps(1, 20, 0, "labels X20< m20< X10 m10 X0> m0> settle e0< e10 X20> e20> end ");
  expect_steps(1, 25, 0, "labels X20< m20< X10 m10 X0> m0> settle e0< e10 e20> end ");
}

Test(linear_plan, a_step_that_fails_is_the_last) {
  const record whole = run_noted(1, 20, 1, -1);
  for (int at = 0; at < whole.steps; at++) {
    const record r = run_noted(1, 20, 1, at);
    cr_assert_eq(r.steps, at + 1, "%s", r.text);
    cr_assert_eq(strncmp(whole.text, r.text, strlen(r.text)), 0, "%s", r.text);
  }
}

/* ---- Products of the CPU ----------------------------------------------------------------------------------------- */

static tare_sgemm *real_sgemm;
static int products;

static void counted_sgemm(int order, int a_form, int b_form, int m, int n, int k, float alpha, const float *a, int lda,
                          const float *b, int ldb, float beta, float *c, int ldc) {
  products++;
  real_sgemm(order, a_form, b_form, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void *__real_dlsym(void *library, const char *name);
void *__wrap_dlsym(void *library, const char *name);
void *__wrap_dlsym(void *library, const char *name) {
  tare_sgemm *counted = counted_sgemm;
  void *symbol = __real_dlsym(library, name);
  if (symbol == NULL || strcmp(name, "cblas_sgemm") != 0) return symbol;
  memcpy(&real_sgemm, &symbol, sizeof real_sgemm);
  memcpy(&symbol, &counted, sizeof symbol);
  return symbol;
}

/* 1,000 rows of 40 classes are three chunks of the least workspace, and one of an ample one. */
static void expect_products(const test_device *device, int32_t kind, int32_t dtype, double room, int want) {
  problem *p = head_problem(kind, dtype, 1000, 40, 12);
  p->head->room = room;
  products = 0;
  CHECK_PROBLEM(p, device);
  cr_assert_eq(products, want, "%s: %d products instead of %d", problem_text(p), products, want);
  problem_free(p);
}

Test(linear_plan, products_of_the_cpu) {
  FOR_EACH_DEVICE(device) {
    if (!device->host_memory) continue;
    head_require_blas(device);
    for (int32_t dtype = TARE_DTYPE_F32; dtype <= TARE_DTYPE_F16; dtype++) {
      expect_products(device, TARE_LOSS_SIGMOID_CE, dtype, 0, 9);
      expect_products(device, TARE_LOSS_SIGMOID_CE, dtype, 1, 3);
      expect_products(device, TARE_LOSS_GHM_C, dtype, 0, 11);
      expect_products(device, TARE_LOSS_GHM_C, dtype, 1, 3);
    }
  }
}

/* More rows than an ample chunk of the CPU's has, 96 MB, of few dimensions. */
enum { MANY_ROWS = 1300, MANY_CLASSES = 20000, FEW_DIMENSIONS = 2 };

typedef struct large_head {
  uint16_t features[MANY_ROWS * FEW_DIMENSIONS], weights[MANY_CLASSES * FEW_DIMENSIONS];
  int32_t labels[MANY_ROWS];
} large_head;

typedef struct large_result {
  float loss, weights_gradient[MANY_CLASSES * FEW_DIMENSIONS], bias_gradient[MANY_CLASSES];
  uint16_t features_gradient[MANY_ROWS * FEW_DIMENSIONS];
} large_result;

/** The products of a call whose workspace is `more` bytes beyond ample. */
static int run_large(tare_context *context, const large_head *head, uint64_t more, large_result *result) {
  tare_loss_spec loss;
  tare_level level;
  tare_batch batch;
  tare_output output;
  tare_linear linear;
  tare_loss_spec_init(&loss, TARE_LOSS_GHM_C);
  tare_level_init_rows(&level, MANY_ROWS, MANY_CLASSES);
  level.labels = head->labels;
  tare_batch_init(&batch);
  batch.levels = &level;
  batch.level_count = 1;
  batch.classes = MANY_CLASSES;
  tare_output_init(&output);
  output.loss = &result->loss;
  tare_linear_init(&linear, FEW_DIMENSIONS);
  linear.dtype = TARE_DTYPE_BF16;
  linear.features = head->features;
  linear.weights = head->weights;
  linear.features_gradient = result->features_gradient;
  linear.weights_gradient = result->weights_gradient;
  linear.bias_gradient = result->bias_gradient;
  uint64_t ample = 0;
  cr_assert_eq(tare_linear_workspace_size(context, &loss, &batch, &linear, &output, NULL, &ample), TARE_STATUS_OK);
  void *workspace = aligned_alloc(64, (ample + more + 63) / 64 * 64);
  cr_assert_eq(tare_context_set_workspace(context, workspace, ample + more), TARE_STATUS_OK);
  products = 0;
  cr_assert_eq(tare_linear_evaluate(context, &loss, &batch, &linear, &output, NULL), TARE_STATUS_OK, "%s",
               tare_error_text(context));
  tare_context_set_workspace(context, NULL, 0);
  free(workspace);
  return products;
}

static uint16_t bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (uint16_t)(bits >> 16);
}

Test(linear_plan, logits_are_kept_where_the_workspace_has_room) {
  FOR_EACH_DEVICE(device) {
    if (!device->host_memory) continue;
    head_require_blas(device);
    large_head *head = calloc(1, sizeof *head);
    large_result *shared = calloc(1, sizeof *shared), *kept = calloc(1, sizeof *kept);
    for (int i = 0; i < MANY_ROWS * FEW_DIMENSIONS; i++) head->features[i] = bf16((float)(i * 37 % 101 - 50) / 16);
    for (int i = 0; i < MANY_CLASSES * FEW_DIMENSIONS; i++) head->weights[i] = bf16((float)(i * 53 % 97 - 60) / 32);
    for (int i = 0; i < MANY_ROWS; i++) head->labels[i] = i % 3 ? -1 : i * 7;
    cr_assert_eq(run_large(device->context, head, 0, shared), 7);
    cr_assert_eq(run_large(device->context, head, (uint64_t)4 * MANY_ROWS * MANY_CLASSES, kept), 6);
    cr_assert_eq(memcmp(shared, kept, sizeof *kept), 0, "kept logits give other bits");
    free(head);
    free(shared);
    free(kept);
  }
}
