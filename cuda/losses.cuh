/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of losses as the kernels see it: a type for each loss, and a call with the type of a kind. A family of
 * kernels launches and loads the losses of its family and passes. A loss that no family computes does not compile.
 */
#ifndef TARE_CUDA_LOSSES_CUH
#define TARE_CUDA_LOSSES_CUH

#include "kernels.cuh"
#include "losses/powers.h"

namespace tare {

/** A type for each loss, by its name in the list. */
namespace losses {

constexpr bool NO_GAMMA = false, GAMMA = true; /* whether the formula has a power */
enum {
  WHOLE,
  PART,
  APART,
  NEGATIVES,
  SHAPED
}; /* what alpha is a factor of, and whether labels have their own formula */

template <int32_t the_kind, int32_t the_family, int32_t the_passes, bool powers, int alpha, int32_t what_it_takes>
struct loss {
  static constexpr int32_t kind = the_kind, family = the_family, passes = the_passes;
  static constexpr bool has_power = powers, alpha_is_part = alpha == PART, labels_apart = alpha >= APART;
  static constexpr bool is_shaped = alpha == SHAPED; /* computed by the kernels of the shapes */
  static constexpr bool takes_scores = (what_it_takes & TARE_TAKES_SCORES) != 0;
  static constexpr bool can_have_scores = takes_scores || labels_apart; /* computed by a score_pass */
};

#define TARE_LOSS(KIND, formula, name, FAMILY, POWERS, ALPHA, PASSES, member, TAKES) \
  struct KIND : loss<TARE_LOSS_##KIND, TARE_LOSS_FAMILY_##FAMILY, TARE_PASSES_##PASSES, POWERS, ALPHA, TAKES> {};
#include "losses/losses.def"
#undef TARE_LOSS

}  // namespace losses

/** The power with which a loss has kernels for each walk, and for labels and dense targets apart: up to 15 for three
 *  types of logits. Most train with these. Every other instance has 6: see launch_loss in sigmoid.cuh. */
template <typename Loss>
constexpr int32_t hot_power = -1;
template <>
constexpr int32_t hot_power<losses::SIGMOID_CE> = TARE_POWER_0;
template <>
constexpr int32_t hot_power<losses::SIGMOID_FOCAL> = TARE_POWER_2;

/** Losses with scores whose negatives are q^gamma*l: those whose labels have a formula of their own, and those listed
 *  here. They share kernels, so such a loss adds none. Any other loss with scores has kernels of its own. */
template <typename Loss>
constexpr bool shares_negatives = Loss::labels_apart && !Loss::is_shaped;
template <>
constexpr bool shares_negatives<losses::SIGMOID_CE> = true;
template <>
constexpr bool shares_negatives<losses::SIGMOID_FOCAL> = true;

/** Whether a family of kernels computes the loss: its family and its passes are those of the family. */
template <typename Loss, int32_t family, int32_t passes>
constexpr bool is_of_family = (Loss::family == family) && (Loss::passes == passes);

#define TARE_LOSS(KIND, ...)                                                                      \
  static_assert(is_of_family<losses::KIND, TARE_LOSS_FAMILY_SIGMOID, TARE_PASSES_ONE> ||          \
                    is_of_family<losses::KIND, TARE_LOSS_FAMILY_SIGMOID, TARE_PASSES_DENSITY> ||  \
                    is_of_family<losses::KIND, TARE_LOSS_FAMILY_SOFTMAX, TARE_PASSES_ONE> ||      \
                    is_of_family<losses::KIND, TARE_LOSS_FAMILY_REGRESSION, TARE_PASSES_DENSITY>, \
                #KIND                                                                             \
                " of losses.def has no kernels: see sigmoid.cuh, ghm_c.cuh, softmax_launch.cuh, regression.cuh");
#include "losses/losses.def"
#undef TARE_LOSS

/** Returns use(loss) for the loss of this kind, if it is of the family; else an error, and nothing is launched. */
template <int32_t family, int32_t passes, typename Use>
cudaError_t with_loss(int32_t kind, Use &&use) {
#define TARE_LOSS(KIND, ...)                                \
  if constexpr (is_of_family<losses::KIND, family, passes>) \
    if (kind == losses::KIND::kind) return use(losses::KIND());
#include "losses/losses.def"
#undef TARE_LOSS
  return cudaErrorInvalidValue;
}

/** Calls use(loss) for each loss of a family, until it fails. */
template <int32_t family, int32_t passes, typename Use>
cudaError_t for_each_loss(Use &&use) {
  cudaError_t status = cudaSuccess;
#define TARE_LOSS(KIND, ...)                                \
  if constexpr (is_of_family<losses::KIND, family, passes>) \
    if (status == cudaSuccess) status = use(losses::KIND());
#include "losses/losses.def"
#undef TARE_LOSS
  return status;
}

}  // namespace tare

#endif
