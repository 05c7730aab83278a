/* SPDX-License-Identifier: Apache-2.0 */
#include "linear_plan.h"

#include "class_sums.h"

/** A workspace, cut into parts. */
typedef struct room {
  int64_t chunk_rows, kept_rows;
  uint64_t blas_bytes;
  uint64_t offset[TARE_PART_COUNT], bytes_of[TARE_PART_COUNT];
  uint64_t bytes; /* of all parts, and of what aligns the first */
} room;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static uint64_t rounded_up(uint64_t bytes, uint64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

static uint64_t row_of_logits(const tare_problem *problem) { return sizeof(float) * (uint64_t)problem->batch.classes; }

static uint64_t part_bytes(const tare_linear_needs *needs, const tare_problem *problem, const room *r, int part) {
  const tare_part_size *size = &needs->size[part];
  const uint64_t rows = (uint64_t)r->chunk_rows, step = (uint64_t)needs->step_rows;
  if (part == TARE_PART_BLAS) return r->blas_bytes;
  if (part == TARE_PART_CLASS_SUMS) return tare_class_sum_bytes(problem, r->chunk_rows);
  if (part == TARE_PART_LOGITS) return row_of_logits(problem) * (uint64_t)r->kept_rows;
  return size->fixed + size->of_row * rows + size->of_step * ((rows + step - 1) / step);
}

static room cut(const tare_linear_needs *needs, const tare_problem *problem, int64_t chunk_rows, int64_t kept_rows,
                uint64_t blas_bytes) {
  room r = {.chunk_rows = chunk_rows, .kept_rows = kept_rows, .blas_bytes = blas_bytes};
  uint64_t end = 0;
  for (int part = 0; part < TARE_PART_COUNT; part++) {
    r.bytes_of[part] = part_bytes(needs, problem, &r, part);
    r.offset[part] = rounded_up(end, needs->alignment);
    if (r.bytes_of[part]) end = r.offset[part] + r.bytes_of[part];
  }
  r.bytes = end + (needs->aligns_first ? needs->alignment : 0);
  return r;
}

static room least_room(const tare_linear_needs *needs, const tare_problem *problem) {
  const int64_t rows = smaller(problem->rows, needs->step_rows);
  return cut(needs, problem, rows, rows, needs->size[TARE_PART_BLAS].fixed);
}

static room ample_room(const tare_linear_needs *needs, const tare_problem *problem) {
  const int64_t step = needs->step_rows, steps = needs->ample_rows / step;
  int64_t rows = problem->rows;
  if (needs->ample_rows < rows) rows = smaller(rows, (steps ? steps : 1) * step);
  return cut(needs, problem, rows, rows, needs->ample_blas);
}

/** A quarter for the BLAS, or what the smallest chunk leaves if that is less; then as many rows as fit. */
static room fitting_room(const tare_linear_needs *needs, const tare_problem *problem, uint64_t bytes) {
  room r = ample_room(needs, problem);
  if (r.bytes <= bytes) return r;
  const uint64_t unit = needs->alignment, least = needs->size[TARE_PART_BLAS].fixed;
  const uint64_t spare = (bytes - least_room(needs, problem).bytes) / unit * unit;
  uint64_t blas = bytes / 4 / unit * unit;
  if (blas < least) blas = least;
  if (blas > least + spare) blas = least + spare;
  if (blas > needs->ample_blas) blas = needs->ample_blas;
  r = cut(needs, problem, r.chunk_rows, r.chunk_rows, blas);
  if (r.bytes <= bytes) return r;
  int64_t low = 1, high = r.chunk_rows / needs->step_rows; /* steps; one always fits */
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2, rows = middle * needs->step_rows;
    if (cut(needs, problem, rows, rows, blas).bytes <= bytes)
      low = middle;
    else
      high = middle - 1;
  }
  return cut(needs, problem, low * needs->step_rows, low * needs->step_rows, blas);
}

/** Gives further chunks of logits a place where the workspace has one, beyond what is ample. */
static room keeping_room(const tare_linear_needs *needs, const tare_problem *problem, const room *r, uint64_t bytes) {
  const uint64_t taken = r->bytes + needs->alignment; /* of a part after the logits */
  const uint64_t more = bytes > taken ? (bytes - taken) / row_of_logits(problem) : 0;
  const int64_t left = problem->rows - r->chunk_rows;
  const int64_t kept = more >= (uint64_t)left ? left : (int64_t)more / r->chunk_rows * r->chunk_rows;
  return cut(needs, problem, r->chunk_rows, r->chunk_rows + kept, r->blas_bytes);
}

void tare_linear_plan_sizes(const tare_linear_needs *needs, const tare_problem *problem, uint64_t *least,
                            uint64_t *ample) {
  *least = problem->rows ? least_room(needs, problem).bytes : 0;
  *ample = problem->rows ? ample_room(needs, problem).bytes : 0;
}

static void place_parts(tare_linear_plan *plan, const tare_linear_needs *needs, const room *r, void *workspace) {
  const uintptr_t start = (uintptr_t)workspace, past = needs->aligns_first ? start % needs->alignment : 0;
  char *first = (char *)workspace + (past ? needs->alignment - past : 0);
  for (int part = 0; part < TARE_PART_COUNT; part++)
    plan->part[part] = r->bytes_of[part] ? first + r->offset[part] : NULL;
}

tare_status tare_linear_plan_make(tare_linear_plan *plan, const tare_linear_needs *needs, void *workspace,
                                  uint64_t bytes, tare_error *error) {
  uint64_t least, ample;
  tare_linear_plan_sizes(needs, plan->problem, &least, &ample);
  if (bytes < least)
    return tare_fail(error, TARE_STATUS_WORKSPACE_TOO_SMALL,
                     "workspace has %llu bytes; this call needs at least %llu, and %llu are ample: see "
                     "tare_linear_workspace_size and tare_context_set_workspace",
                     (unsigned long long)bytes, (unsigned long long)least, (unsigned long long)ample);
  room r = fitting_room(needs, plan->problem, bytes);
  if (plan->measures) r = keeping_room(needs, plan->problem, &r, bytes);
  plan->chunk_rows = r.chunk_rows;
  plan->kept_rows = r.kept_rows;
  plan->blas_bytes = r.blas_bytes;
  place_parts(plan, needs, &r, workspace);
  return TARE_STATUS_OK;
}
