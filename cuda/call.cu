/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a checked problem to a call by value: which walk the kernels take, how the rows are cut into tiles, and what
 * else a kernel wants to know. Nothing here touches the device.
 */
#include <cmath>
#include <cstring>

#include "backend.cuh"
#include "losses/powers.h"
#include "row_losses.cuh"
#include "softmax_shapes.cuh"

namespace tare {

namespace {

/** Whether the classes of a row are contiguous, and so are the rows. */
bool is_run(const tare_view &v, const tare_array &a, int64_t classes) {
  return !a.data || ((a.cls == 1 || classes == 1) && (a.stride[3] == classes || v.dim[3] == 1));
}

/** With labels, rows of a softmax loss go through shared memory if their classes are contiguous and not too many; else
 *  they are taken side by side if that is how most of them lie. */
int32_t choose_label_walk(const tare_problem *problem) {
  const int64_t classes = problem->batch.classes;
  bool whole = classes <= softmax::most_classes_of_room;
  int64_t side_by_side = 0;
  for (int i = 0; i < problem->level_count; i++) {
    const tare_view &v = problem->view[i];
    if (!v.rows) continue;
    const tare_array &logits = v.array[TARE_ARRAY_LOGITS], &gradient = v.array[TARE_ARRAY_GRADIENT];
    whole = whole && (classes == 1 || (logits.cls == 1 && (!gradient.data || gradient.cls == 1)));
    if (logits.stride[3] == 1 && logits.cls != 1) side_by_side += v.rows;
  }
  return whole ? walk_flat : side_by_side * 2 > problem->rows ? walk_nchw : walk_rows;
}

int32_t choose_softmax_walk(const tare_problem *problem) {
  return problem->soft ? walk_rows : choose_label_walk(problem);
}

/** See call::label_lanes. */
int32_t label_lanes_of(const tare_problem *problem) {
  const int32_t walk = choose_label_walk(problem);
  if (walk != walk_flat) return walk == walk_nchw ? label_by_warps : label_by_row;
  return softmax::lanes_of_row(int32_t(problem->batch.classes));
}

/** Enough rows to keep a block busy for a while, few enough that all blocks have some. */
int64_t softmax_rows_of_tile(const tare_problem *problem, const tare_view &view, int32_t walk) {
  const bool has_kernels_of_warps = /* and none of blocks */
      tare_has_row_terms(problem) || tare_is_seesaw(problem) || tare_has_bins(problem);
  const bool by_block = problem->batch.classes > softmax::most_classes_of_warp && !has_kernels_of_warps;
  int64_t together = by_block ? 1 : block_threads / 32;
  if (walk == walk_nchw) together = softmax::rows_of_nchw;
  if (walk == walk_flat) together = block_threads / softmax::lanes_of_row(int32_t(problem->batch.classes));
  const int64_t times = view.rows / (together * 2048) + 1;
  return together * (times < 16 ? times : 16);
}

/** Which walk every level of the problem can take. */
int32_t choose_walk(const tare_problem *problem) {
  if (problem->family == TARE_LOSS_FAMILY_SOFTMAX) return choose_softmax_walk(problem);
  if (problem->batch.class_mask) return walk_rows; /* the other walks know no mask: their loops are at their limits */
  bool flat = true, nchw = !problem->soft;
  for (int i = 0; i < problem->level_count; i++) {
    const tare_view &v = problem->view[i];
    if (!v.rows) continue;
    const tare_array &logits = v.array[TARE_ARRAY_LOGITS], &gradient = v.array[TARE_ARRAY_GRADIENT];
    const int64_t classes = problem->batch.classes;
    if (v.array[TARE_ARRAY_ROW_LOSS].data) return walk_rows;
    flat = flat && is_run(v, logits, classes) && is_run(v, gradient, classes) && classes < (1 << 20);
    nchw = nchw && logits.stride[3] == 1 && (!gradient.data || gradient.stride[3] == 1);
  }
  return flat ? walk_flat : nchw ? walk_nchw : walk_rows;
}

/** Rows that are taken together: as many as their losses have room for, and a whole number of vectors. */
int64_t rows_with_losses(int64_t classes) {
  const int64_t rows = most_elements_with_losses / classes;
  return rows > most_rows_with_losses ? most_rows_with_losses : classes % 4 == 0 ? rows : rows / 4 * 4;
}

/** It depends on the level alone, so that a level's sum is that of a call of its own. */
int64_t rows_of_tile(const tare_problem *problem, const level &l) {
  const int64_t classes = problem->batch.classes;
  const tare_view &view = l.view;
  const int32_t walk = l.walk;
  if (problem->family == TARE_LOSS_FAMILY_REGRESSION) return 1024;
  if (problem->family == TARE_LOSS_FAMILY_SOFTMAX) return softmax_rows_of_tile(problem, view, walk);
  if (tare_has_columns(problem)) return 256; /* a row for each thread, or for each warp in turn */
  if (walk == walk_nchw) return 256;
  if (l.allows_lean_way == lean_together) return rows_with_losses(classes);
  if (walk == walk_rows) return 64;
  const int64_t rows = 8192 / classes / 8 * 8; /* whole vectors of any type, and no turn of a block for a few of them */
  return rows < 8 ? 8 : rows > most_flat_rows ? most_flat_rows : rows;
}

/** rows_of(level): of a tile. Returns the number of tiles. */
template <typename RowsOf>
int64_t cut(const tare_problem *problem, RowsOf &&rows_of, tiling level::*which, call *c) {
  int64_t tiles = 0;
  for (int i = 0; i < problem->level_count; i++) {
    const tare_view &v = problem->view[i];
    tiling &t = c->levels[i].*which;
    const int64_t rows = rows_of(c->levels[i]);
    t.first = tiles;
    t.rows = int32_t(rows);
    if (!v.rows) continue;
    const int64_t chunks = (v.dim[3] + rows - 1) / rows;
    t.chunks = make_divider(chunks);
    t.dim_2 = make_divider(v.dim[2]);
    t.dim_1 = make_divider(v.dim[1]);
    tiles += v.rows / v.dim[3] * chunks;
  }
  return tiles;
}

bool is_aligned(const tare_problem *problem, const tare_view &v, const tare_array &a, int32_t walk) {
  if (!a.data) return true;
  const int64_t bytes = tare_dtype_bytes(problem->batch.dtype), size = 16 / bytes;
  bool fits = reinterpret_cast<uintptr_t>(a.data) % 16 == 0;
  for (int axis = 0; axis < 3; axis++) fits = fits && (v.dim[axis] == 1 || a.stride[axis] % size == 0);
  if (walk == walk_nchw) fits = fits && (a.cls % size == 0 || problem->batch.classes == 1);
  return fits;
}

uint32_t magic_of(int64_t classes, int64_t tile_elements) {
  if (classes == 1 || classes >= 4096 || tile_elements * classes >= int64_t(1) << 32) return 0;
  return uint32_t(((uint64_t(1) << 32) + uint64_t(classes) - 1) / uint64_t(classes));
}

/** Whether weights or targets of elements lie as flat vectors of logits do. */
bool is_flat(const call &c, const level &l, int name, int64_t bytes) {
  const tare_array &a = l.view.array[name];
  if (!a.data) return true;
  bool fits = is_run(l.view, a, c.classes) && reinterpret_cast<uintptr_t>(a.data) % 16 == 0;
  for (int axis = 0; axis < 3; axis++) fits = fits && (l.view.dim[axis] == 1 || a.stride[axis] * bytes % 16 == 0);
  return fits;
}

/** Whether zeros among dense targets can be looked for in vectors: not of fewer bytes than the logits'. */
bool has_flat_targets(const call &c, const level &l) {
  const int64_t bytes = tare_dtype_bytes(c.target_dtype);
  return c.target_dtype != TARE_DTYPE_F64 && bytes >= tare_dtype_bytes(c.dtype) &&
         is_flat(c, l, TARE_ARRAY_TARGETS, bytes);
}

/** Whether rows of a level of walk_rows are taken together, four elements at a time. A tile has a whole number of such
 *  fours, and begins where one does. GHM, losses with a shape, and exponents other than 0, 1 and 2 go another way:
 *  their code would be long. */
bool go_together(const call &c, const level &l) {
  const bool fits =
      c.classes >= 4 && c.classes < most_elements_with_losses && (c.classes % 4 == 0 || rows_with_losses(c.classes));
  return fits && !c.is_mask && c.shape == TARE_SHAPE_NONE && c.power <= TARE_POWER_2 && !c.masks_classes && l.aligned &&
         is_run(l.view, l.view.array[TARE_ARRAY_LOGITS], c.classes) &&
         is_run(l.view, l.view.array[TARE_ARRAY_GRADIENT], c.classes);
}

/** Poly-1 has a term that alpha does not weigh, so its alpha may be 0 or 1. With other weights a vector takes two rows,
 *  so a row has as many classes as a vector at least, less one. */
lean_way choose_lean_way(const call &c, const level &l) {
  const int64_t size = c.dtype == TARE_DTYPE_F32 ? 4 : 8;
  const bool zero_alpha = c.has_alpha && (c.alpha == 0.0f || c.alpha_of_0 == 0.0f);
  const bool weighted =
      c.alpha_per_class || c.positive_weights || l.view.array[TARE_ARRAY_ELEMENT_WEIGHTS].data || zero_alpha;
  if (l.view.array[TARE_ARRAY_ELEMENT_LOSS].data) return lean_never;
  if (c.soft) return l.walk == walk_flat && l.aligned && !weighted && has_flat_targets(c, l) ? lean_zeros : lean_never;
  if (l.walk == walk_rows) return weighted ? lean_never : go_together(c, l) ? lean_together : lean_plain;
  if (l.walk == walk_nchw) return weighted ? lean_never : l.aligned ? lean_plain : lean_rows;
  if (l.walk != walk_flat || !l.aligned) return lean_never;
  if (!weighted) return c.classes >= size - 1 ? lean_plain : lean_short;
  if (c.classes < size - 1 || !is_flat(c, l, TARE_ARRAY_ELEMENT_WEIGHTS, 4)) return lean_never;
  if (!l.view.array[TARE_ARRAY_ELEMENT_WEIGHTS].data) return lean_alphas;
  return c.alpha_per_class ? lean_both : lean_elements;
}

void fill_batch(const tare_problem *problem, call *c) {
  const tare_batch &b = problem->batch;
  c->kind = problem->loss.kind;
  c->family = problem->family;
  c->power = problem->power;
  c->soft = problem->soft;
  c->dtype = b.dtype;
  c->label_dtype = b.label_dtype;
  c->target_dtype = b.target_dtype;
  c->level_count = problem->level_count;
  c->classes = b.classes;
  c->first_label = b.first_label;
  c->background_label = b.background_label;
  c->ignore_label = b.ignore_label;
  c->background_role = tare_background_role(problem);
  c->is_mask = tare_is_ghm(problem);
  c->background_weight = float(b.background_weight);
  c->class_weights = b.class_weights;
  c->positive_weights = b.positive_weights;
  c->negative_weights = b.negative_weights;
  c->background_negative_weights = b.background_negative_weights ? b.background_negative_weights : b.negative_weights;
  c->gamma_per_class = problem->gamma_per_class;
  c->has_columns = tare_has_columns(problem);
  c->weighs_terms = problem->weighs_terms;
  c->masks_classes = b.class_mask != nullptr;
  c->adjusts = offsets_alone(problem->class_offset);
  if (tare_is_ldam(problem)) c->adjusts = {problem->class_margins, INFINITY, 0.0f, float(problem->row_scale), 1};
  c->checks_targets = problem->checks_targets;
  c->target_least = float(problem->target_least);
  c->target_most = float(problem->target_most);
  c->has_scores = problem->has_scores;
  c->score_dtype = b.score_dtype;
  c->labels_are_flags = tare_labels_are_flags(problem);
  c->bin_numbers = tare_has_bins(problem) ? tare_bin_numbers(problem) : 0;
  c->last_target = float(tare_last_target(problem));
  c->score_least = float(problem->score_least);
  c->score_most = float(problem->score_most);
}

/** The loss's parameters in f32, or as pairs of f32. */
void fill_parameters(const tare_problem *problem, call *c) {
  c->has_alpha = problem->alpha >= 0;
  c->alpha = !c->has_alpha || problem->alpha_of_negatives ? 1.0f : float(problem->alpha);
  c->alpha_of_0 = !c->has_alpha                 ? 1.0f
                  : problem->alpha_of_negatives ? float(problem->alpha)
                                                : float(problem->alpha_of_0);
  c->alpha_per_class = problem->alpha_per_class;
  c->alpha_of_negatives = problem->alpha_of_negatives;
  c->has_peaks = tare_has_peaks(problem);
  c->negative_at_0 = tare_is_negative_at_0(problem);
  c->gamma_hi = float(problem->gamma);
  c->gamma_lo = float(problem->gamma - double(c->gamma_hi));
  c->epsilon = float(problem->poly_epsilon);
  c->derivative_gamma = problem->modulator_is_detached ? 0.0f : c->gamma_hi;
  c->p_hi = float(problem->p_exponent);
  c->p_lo = float(problem->p_exponent - double(c->p_hi));
  c->rest_hi = float(1 - problem->p_exponent);
  c->rest_lo = float(1 - problem->p_exponent - double(c->rest_hi));
}

/** As cpu/parameters.h. */
void fill_shape(const tare_problem *problem, call *c) {
  c->shape = problem->shape;
  c->smoothed = float(tare_smoothed_rest(problem));
  c->unsmoothed = float(1 - tare_smoothed_rest(problem));
  c->has_row_terms = tare_has_row_terms(problem);
  c->z_loss = problem->z_loss;
  c->smooths_all = problem->smooths_all;
  c->smoothed_share = float(tare_smoothed_share(problem));
  c->unshared = float(1 - tare_smoothed_share(problem));
  c->smoothed_distance = float(1 - problem->label_smoothing);
  c->label_gamma_hi = float(problem->label_gamma);
  c->label_gamma_lo = float(problem->label_gamma - double(c->label_gamma_hi));
  c->label_derivative_gamma = problem->modulator_is_detached ? 0.0f : c->label_gamma_hi;
  c->margin = float(problem->margin);
  c->margin_rest = float(1 - problem->margin);
  c->margin_logit = problem->margin < 1 ? float(problem->margin_logit) : FLT_MAX;
  c->margin_logit_lo =
      problem->margin < 1 ? float((problem->margin_logit - double(c->margin_logit)) + problem->margin_logit_lo) : 0.0f;
  c->threshold = problem->threshold_logit_f32;
  c->log_threshold = float(problem->log_threshold);
  c->shift = float(problem->shift);
  c->shift_lo = float(problem->shift - double(c->shift));
  c->inverse_gamma = problem->shape == TARE_SHAPE_STAR ? float(1 / problem->gamma) : 0.0f;
}

/** Without log counts or an exponent there is no mitigation. */
void fill_by_label(const tare_problem *problem, call *c) {
  c->adjusts_by_label = tare_is_seesaw(problem);
  if (!c->adjusts_by_label) return;
  c->seesaw = {problem->mitigation > 0 ? problem->log_counts : nullptr, float(problem->mitigation),
               float(problem->compensation), float(log(problem->least_probability)), 0};
}

void fill_output(const backend *self, const tare_problem *problem, call *c) {
  const tare_output &o = problem->output;
  c->normalizer = o.normalizer;
  c->loss_dtype = o.loss_dtype;
  c->inverse_divisor = o.normalizer == TARE_NORMALIZER_VALUE ? 1.0 / o.normalizer_value : 1.0;
  c->divisor_pointer = o.normalizer == TARE_NORMALIZER_VALUE ? o.normalizer_pointer : nullptr;
  c->divisor_counted = tare_counts_rows(&o);
  c->divisor_addend = o.normalizer_addend;
  c->divisor_minimum = o.normalizer_minimum;
  c->gradient_scale = o.gradient_scale;
  c->gradient_scale_pointer = o.gradient_scale_pointer;
  c->loss = o.loss;
  c->counts = o.counts;
  c->all_positives = problem->all_positives;
  c->record = self->record;
  c->partials = reinterpret_cast<double *>(self->record + 1);
}

}  // namespace

void fill_levels(const tare_problem *problem, call *c) {
  const int32_t walk = choose_walk(problem);
  for (int i = 0; i < problem->level_count; i++) c->levels[i].view = problem->view[i];
  if (problem->family == TARE_LOSS_FAMILY_SOFTMAX) c->label_lanes = label_lanes_of(problem);
  for (int i = 0; i < problem->level_count; i++) {
    level &l = c->levels[i];
    l.walk = walk;
    l.aligned = is_aligned(problem, l.view, l.view.array[TARE_ARRAY_LOGITS], walk) &&
                is_aligned(problem, l.view, l.view.array[TARE_ARRAY_GRADIENT], walk);
    l.allows_lean_way = choose_lean_way(*c, l);
  }
  const auto of_loss = [&](const level &l) { return rows_of_tile(problem, l); };
  const auto of_labels = [](const level &) -> int64_t { return 1024; };
  c->tile_count = cut(problem, of_loss, &level::tiles, c);
  c->count_tile_count = cut(problem, of_labels, &level::count_tiles, c);
  for (int i = 0; i < problem->level_count; i++)
    c->levels[i].magic = magic_of(problem->batch.classes, c->levels[i].tiles.rows * problem->batch.classes);
}

void take_part(const backend *self, const tare_problem *part, call *c) {
  c->level_count = part->level_count;
  c->has_scores = part->has_scores;
  fill_output(self, part, c);
  fill_levels(part, c);
}

/** Fills the whole call. It is zeroed first, so fields that are not set are the same from call to call. */
void make_call(const backend *self, const tare_problem *problem, call *c) {
  memset(static_cast<void *>(c), 0, sizeof *c);
  fill_batch(problem, c);
  fill_parameters(problem, c);
  fill_shape(problem, c);
  fill_by_label(problem, c);
  fill_output(self, problem, c);
  fill_levels(problem, c);
}

/* ---- Sums of each class ------------------------------------------------------------------------------------------ */

namespace {

/** What is the same for every loss: neither divisor nor scale, and tiles of its own. */
void fill_class_sums(const tare_problem *problem, tare_class_sums *room, class_sums_call *c) {
  c->normalizer = TARE_NORMALIZER_SUM;
  c->inverse_divisor = c->gradient_scale = 1.0;
  c->divisor_pointer = c->gradient_scale_pointer = nullptr;
  c->divisor_counted = 0;
  c->tile_count = cut(
      problem, [](const level &) -> int64_t { return rows_summed; }, &level::tiles, c);
  c->sums = problem->output.class_sums;
  c->room = room;
  c->slices = tare_class_sum_slices(problem);
}

}  // namespace

void make_norms_call(const tare_problem *problem, const call &evaluation, const tare_bins &bins, norms_call *c) {
  memset(static_cast<void *>(c), 0, sizeof *c);
  static_cast<call &>(*c) = evaluation;
  c->tile_count = cut(
      problem, [](const level &) -> int64_t { return rows_counted; }, &level::tiles, c);
  c->ghm.bins = bins.count;
  memcpy(c->ghm_c.lower, bins.lower_f32, (size_t(bins.count) + 1) * sizeof *c->ghm_c.lower);
  memcpy(c->ghm_c.norm, bins.norm_f32, (size_t(bins.count) + 1) * sizeof *c->ghm_c.norm);
  c->counted = problem->output.norm_histogram;
}

void make_class_sums_call(const tare_problem *problem, const call &evaluation, tare_class_sums *room,
                          class_sums_call *c) {
  memset(static_cast<void *>(c), 0, sizeof *c);
  static_cast<call &>(*c) = evaluation;
  fill_class_sums(problem, room, c);
}

void make_class_sums_call(const tare_problem *problem, const ghm_call &evaluation, tare_class_sums *room,
                          class_sums_call *c) {
  memset(static_cast<void *>(c), 0, sizeof *c);
  static_cast<ghm_call &>(*c) = evaluation;
  fill_class_sums(problem, room, c);
}

}  // namespace tare
