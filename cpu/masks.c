/* SPDX-License-Identifier: Apache-2.0 */
/* The loss of masks on the CPU: sums of chunks, what follows from them for each mask, and the gradient. */
#include "core/masks.h"

#include <math.h>

#include "backend.h"
#include "core/divide.h"
#include "half.h"
#include "threads.h"

#define TARE_INLINE static inline
#include "losses/mask_overlap.h"

/** What the pieces of the work share. Each piece writes its own place. */
typedef struct mask_work {
  const tare_cpu *cpu;
  const tare_mask_problem *problem;
  tare_mask_function *work;
  double factor, scale;
  int32_t after;
} mask_work;

static void work_on_chunk(void *argument, int64_t number, int32_t thread) {
  const mask_work *w = argument;
  const tare_mask_problem *p = w->problem;
  const int64_t mask = number / p->chunks;
  const tare_mask_piece piece = {.mask = mask,
                                 .chunk = number % p->chunks,
                                 .sums = &p->partials[number],
                                 .result = &p->results[mask],
                                 .factor = w->factor,
                                 .scale = w->scale,
                                 .after = w->after};
  w->work(p, &piece, &w->cpu->scratch[thread]);
}

static void share_chunks(const tare_cpu *cpu, mask_work *work) {
  const tare_mask_problem *p = work->problem;
  tare_share(cpu->threads, p->masks.masks * p->chunks, work_on_chunk, work);
}

/** The sums of a mask, in the order of its chunks. */
static tare_mask_partial sum_of_chunks(const tare_mask_problem *p, int64_t mask) {
  tare_mask_partial all = {.first_invalid = INT64_MAX};
  for (int64_t chunk = 0; chunk < p->chunks; chunk++) {
    const tare_mask_partial *one = &p->partials[mask * p->chunks + chunk];
    all.true_positives += one->true_positives;
    all.false_positives += one->false_positives;
    all.false_negatives += one->false_negatives;
    all.focal += one->focal;
    all.pixels += one->pixels;
    if (one->first_invalid < all.first_invalid) all.first_invalid = one->first_invalid;
  }
  return all;
}

/** Where a loss of a mask may be infinite or NaN without having a part in L. */
static double times_weight(double weight, double loss) { return weight == 0 ? 0 : weight * loss; }

static void finish_mask(const tare_mask_problem *p, int64_t mask) {
  const tare_mask_partial sums = sum_of_chunks(p, mask);
  const double weight = p->masks.mask_weights ? (double)p->masks.mask_weights[mask] : 1;
  const tare_mask_result result =
      tare_mask_result_of(&sums, &p->setting, weight, p->spec.overlap_weight, p->spec.focal_weight);
  const double loss =
      times_weight(p->spec.overlap_weight, result.overlap.loss) + times_weight(p->spec.focal_weight, result.mean_focal);
  const int is_invalid = result.first_invalid != INT64_MAX;
  tare_mask_totals *totals = p->totals;
  p->results[mask] = result;
  totals->overlap += result.overlap.loss;
  totals->focal += result.mean_focal;
  totals->loss += loss;
  totals->counted += result.counts;
  totals->invalid += is_invalid;
  if (is_invalid && totals->first_invalid == INT64_MAX) totals->first_invalid = mask;
  tare_cpu_write_loss(p->masks.dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32, loss,
                      p->output.mask_loss ? (char *)p->output.mask_loss + tare_mask_loss_bytes(p) * mask : NULL);
  if (!p->output.sums) return;
  p->output.sums[mask] = (tare_mask_sums){0};
  if (!is_invalid)
    p->output.sums[mask] =
        (tare_mask_sums){sums.true_positives, sums.false_positives, sums.false_negatives, sums.focal, sums.pixels, 0};
}

static double divisor_of(const tare_mask_problem *p) {
  const tare_mask_output *o = &p->output;
  if (o->normalizer == TARE_NORMALIZER_ROWS) return p->totals->counted > 0 ? (double)p->totals->counted : 1;
  if (o->normalizer != TARE_NORMALIZER_VALUE) return 1;
  return o->normalizer_pointer ? (double)*o->normalizer_pointer : o->normalizer_value;
}

static void finish_masks(const tare_mask_problem *p) {
  *p->totals = (tare_mask_totals){.first_invalid = INT64_MAX};
  for (int64_t mask = 0; mask < p->masks.masks; mask++) finish_mask(p, mask);
  p->totals->divisor = divisor_of(p);
  const tare_mask_output *o = &p->output;
  tare_cpu_write_loss(o->loss_dtype, tare_divide(p->totals->loss, p->totals->divisor), o->loss);
  tare_cpu_write_loss(o->loss_dtype, tare_divide(p->totals->overlap, p->totals->divisor), o->overlap_loss);
  tare_cpu_write_loss(o->loss_dtype, tare_divide(p->totals->focal, p->totals->divisor), o->focal_loss);
}

/** The target of a pixel as it was given. */
static double target_at(const tare_masks *m, int64_t at) {
  switch (m->target_dtype) {
    case TARE_MASK_TARGET_U8:
      return ((const uint8_t *)m->targets)[at];
    case TARE_MASK_TARGET_F16:
      return (double)tare_from_f16(((const uint16_t *)m->targets)[at]);
    case TARE_MASK_TARGET_BF16:
      return (double)tare_from_bf16(((const uint16_t *)m->targets)[at]);
    case TARE_MASK_TARGET_F64:
      return ((const double *)m->targets)[at];
    default:
      return (double)((const float *)m->targets)[at];
  }
}

static tare_status refuse_targets(const tare_mask_problem *p, tare_error *error) {
  const int64_t mask = p->totals->first_invalid, pixel = p->results[mask].first_invalid;
  return tare_fail(error, TARE_STATUS_INVALID_TARGET,
                   "target of pixel %lld of mask %lld is %g; it must be %s (%lld such masks, which added nothing and "
                   "have a gradient of 0)",
                   (long long)pixel, (long long)mask, target_at(&p->masks, mask * p->masks.targets_stride + pixel),
                   p->masks.target_dtype == TARE_MASK_TARGET_U8 ? "0, 1 or masks->ignore_target" : "in [0,1]",
                   (long long)p->totals->invalid);
}

tare_status tare_cpu_evaluate_masks(tare_cpu *cpu, const tare_mask_problem *problem, tare_error *error) {
  const tare_mask_output *o = &problem->output;
  const tare_kernels_of_type *kernels = problem->masks.dtype == TARE_DTYPE_F64 ? cpu->kernels->f64 : cpu->kernels->f32;
  const double scale = o->gradient_scale * (o->gradient_scale_pointer ? (double)*o->gradient_scale_pointer : 1);
  mask_work work = {.cpu = cpu, .problem = problem, .work = kernels->sum_mask, .scale = scale};
  share_chunks(cpu, &work);
  finish_masks(problem);
  work.after = !isfinite(scale);
  work.factor = tare_divide(work.after ? 1 : scale, problem->totals->divisor);
  work.work = kernels->write_mask;
  if (problem->has_gradient) share_chunks(cpu, &work);
  return problem->totals->invalid ? refuse_targets(problem, error) : TARE_STATUS_OK;
}
