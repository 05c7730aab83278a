/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Levels with losses, weights or divisors of their own. Levels with the same divisor and weight are evaluated by one
 * launch, as a call of their own. Its partial sums are then added level by level, by a small kernel that the loss's
 * kernels know nothing of.
 */
#include <cstring>

#include "backend.cuh"

namespace tare {
namespace {

/** What becomes of the partial sums of a launch. */
struct level_losses {
  int32_t index[TARE_MAX_LEVELS]; /* of the launch's levels among all */
  void *loss[TARE_MAX_LEVELS];
  double weight;
  double *values; /* [all_levels] */
  void *all;      /* their sum; or NULL */
  int32_t all_levels, loss_dtype, is_last, reserved;
};

/** The sum of a level, as sum_of_partials has it for a call of its own. A launch of several levels has fewer tiles than
 *  places. */
__device__ double sum_of_level(const call &c, int32_t i) {
  const int64_t from = c.levels[i].tiles.first;
  const int64_t tiles = (i + 1 < c.level_count ? c.levels[i + 1].tiles.first : c.tile_count) - from;
  const int64_t count = partials_of(tiles), each = (count + block_threads - 1) / block_threads;
  const int64_t first = thread_rank() * each, end = first + each < count ? first + each : count;
  double mine = 0;
  for (int64_t k = first; k < end; k++) mine += __ldcg(c.partials + from + k);
  return block_sum<block_threads>(mine);
}

__device__ void write_loss(int32_t dtype, double loss, void *to) {
  if (to && dtype == TARE_DTYPE_F64) *static_cast<double *>(to) = loss;
  if (to && dtype == TARE_DTYPE_F32) *static_cast<float *>(to) = float(loss);
}

/** By one block. */
__global__ void __launch_bounds__(block_threads)
    add_level_losses(const TARE_GRID_CONSTANT call c, const TARE_GRID_CONSTANT level_losses l) {
  for (int32_t i = 0; i < c.level_count; i++) {
    const double sum = sum_of_level(c, i);
    if (thread_rank() != 0) continue;
    const double loss = l.weight * (sum * inverse_divisor_of(c));
    l.values[l.index[i]] = loss;
    write_loss(l.loss_dtype, loss, l.loss[i]);
  }
  if (!l.is_last || thread_rank() != 0) return;
  double all = 0;
  for (int32_t i = 0; i < l.all_levels; i++) all += l.values[i];
  write_loss(l.loss_dtype, all, l.all);
}

/** Levels that share a launch: the first that is not done, and those that agree with it. */
struct part {
  tare_problem problem;
  int taken[TARE_MAX_LEVELS], count;
};

template <typename Call>
void take_next(const backend *self, const tare_problem *whole, bool *done, part *p, Call *c) {
  int first = 0;
  while (done[first]) first++;
  p->count = 0;
  for (int i = first; i < whole->level_count; i++)
    if (!done[i] && (i == first || tare_levels_agree(whole, first, i))) p->taken[p->count++] = i;
  tare_levels_part(whole, p->taken, p->count, &p->problem);
  take_part(self, &p->problem, c);
  if (p->count > 1 && c->tile_count >= most_partials) { /* a place for each tile is needed */
    p->count = 1;
    tare_levels_part(whole, p->taken, p->count, &p->problem);
    take_part(self, &p->problem, c);
  }
  for (int i = 0; i < p->count; i++) done[p->taken[i]] = true;
}

cudaError_t launch_level_losses(const backend *self, const tare_problem *whole, const part &p, const call &c,
                                bool is_last, const launch_site &site) {
  level_losses l;
  memset(&l, 0, sizeof l);
  l.values = level_values(self);
  for (int i = 0; i < p.count; i++) {
    l.index[i] = p.taken[i];
    l.loss[i] = whole->scalars[p.taken[i]].loss;
  }
  l.weight = whole->scalars[p.taken[0]].weight;
  l.all = whole->output.loss;
  l.all_levels = whole->level_count;
  l.loss_dtype = whole->output.loss_dtype;
  l.is_last = is_last;
  return launch(add_level_losses, 1, site, c, l);
}

/** The sums of one level, and the divisor that is formed of them, in the record. */
cudaError_t launch_normalizers_of(const backend *self, const tare_problem *whole, int level, const launch_site &site,
                                  bool reports) {
  part p;
  call c;
  p.taken[0] = level;
  tare_levels_part(whole, p.taken, 1, &p.problem);
  p.problem.output.normalizer = whole->output.normalizer; /* also where the level has a divisor of its own */
  make_call(self, &p.problem, &c);
  const cudaError_t status = launch_count(c, site, reports);
  if (status != cudaSuccess || !tare_sums_elements(whole)) return status;
  tare_normalizer_sums *const sums = whole->output.normalizer_sums;
  return launch_target_sums(c, sums ? sums + level : nullptr, site);
}

template <typename Call>
cudaError_t evaluate_parts(const backend *self, const tare_problem *whole, Call c, const launch_site &site,
                           cudaError_t (*evaluate)(const Call &, const launch_site &)) {
  bool done[TARE_MAX_LEVELS] = {};
  int left = whole->level_count;
  cudaError_t status = cudaSuccess;
  while (left && status == cudaSuccess) {
    part p;
    take_next(self, whole, done, &p, &c);
    left -= p.count;
    const bool counts = tare_is_normalized(&whole->scalars[p.taken[0]]) || whole->output.normalizer_sums;
    for (int i = 0; i < p.count && status == cudaSuccess; i++)
      if (tare_has_scope_level(whole) && counts) status = launch_normalizers_of(self, whole, p.taken[i], site, false);
    if (status == cudaSuccess) status = evaluate(c, site);
    if (status == cudaSuccess) status = launch_level_losses(self, whole, p, c, left == 0, site);
  }
  return status;
}

cudaError_t launch_last_pass(const ghm_call &c, const launch_site &site) {
  return launch_pass(c, ghm_pass::evaluate, site);
}

}  // namespace

cudaError_t launch_level_normalizers(const backend *self, const tare_problem *problem, const launch_site &site,
                                     bool reports) {
  cudaError_t status = cudaSuccess;
  if (!tare_has_scope_level(problem) || !problem->output.normalizer_sums) return status;
  for (int i = 0; i < problem->level_count && status == cudaSuccess; i++)
    status = launch_normalizers_of(self, problem, i, site, reports);
  return status;
}

cudaError_t evaluate_levels(const backend *self, const tare_problem *problem, const call &whole,
                            const launch_site &site) {
  return evaluate_parts(self, problem, whole, site, launch_evaluation);
}

cudaError_t evaluate_levels(const backend *self, const tare_problem *problem, const ghm_call &whole,
                            const launch_site &site) {
  return evaluate_parts(self, problem, whole, site, launch_last_pass);
}

cudaError_t load_level_losses() { return load_kernels(add_level_losses); }

}  // namespace tare
