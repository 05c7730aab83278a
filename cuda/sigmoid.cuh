/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sigmoid family: loss and gradient in one launch, one read and one write of memory an element.
 *
 * Blocks go from tile to tile. An element is computed by its signed logit u (x where the target is 0, -x where it is 1),
 * so both cases are the same formula and a target of 1 costs two signs. Three walks over a tile:
 *   flat     a thread takes 16 bytes along the classes; the row follows from the index
 *   planes   a thread takes 16 bytes along the rows, looks at their labels once, and goes from class to class (NCHW)
 *   rows     a warp takes a row, element by element: any strides, and row losses
 */
#ifndef TARE_CUDA_SIGMOID_CUH
#define TARE_CUDA_SIGMOID_CUH

#include "losses.cuh"
#include "primitives.cuh"

namespace tare {
namespace sigmoid {

/** What all elements share, in registers. */
struct setting {
  exact::formula_parameters parameters;
  float factor;     /* of the gradient */
  float at_0, at_1; /* alpha_t of targets 0 and 1, where no class has its own */
  bool by_class;    /* alpha or positive weights of each class */
  int32_t power;
};

__device__ __forceinline__ setting make_common_setting(const call &c) {
  setting s;
  s.parameters = {c.gamma_hi, c.gamma_lo, c.epsilon};
  s.factor = gradient_factor_of(c);
  s.at_0 = c.has_alpha ? c.alpha_of_0 : 1.0f;
  s.at_1 = c.has_alpha ? c.alpha : 1.0f;
  s.by_class = c.alpha_per_class || c.positive_weights;
  s.power = c.power;
  return s;
}

/** The formulas of a loss. What losses/formulas.h says of their parameters holds. */
template <typename Loss>
struct formula;

#define FORMULA_OF_SIGMOID(KIND, name)                                                                               \
  template <>                                                                                                        \
  struct formula<losses::KIND> {                                                                                     \
    __device__ __forceinline__ static exact::pair hard(float z, float weight, float plain,                           \
                                                       const exact::formula_parameters *parameters, int power) {     \
      return exact::name(z, weight, plain, parameters, power);                                                       \
    }                                                                                                                \
    __device__ __forceinline__ static exact::pair positive(float z, float weight, float plain,                       \
                                                           const exact::formula_parameters *parameters, int power) { \
      return exact::name##_positive(z, weight, plain, parameters, power);                                            \
    }                                                                                                                \
    __device__ __forceinline__ static approximate::pair rough(float z, float weight, float plain,                    \
                                                              const approximate::formula_parameters *parameters,     \
                                                              int power) {                                           \
      return approximate::name(z, weight, plain, parameters, power);                                                 \
    }                                                                                                                \
    __device__ __forceinline__ static exact::pair soft(float x, float target, float weight, float plain,             \
                                                       const exact::formula_parameters *parameters, int power) {     \
      return exact::name##_soft(x, target, weight, plain, parameters, power);                                        \
    }                                                                                                                \
  };
#define FORMULA_OF_SOFTMAX(KIND, name)
#define FORMULA_OF_REGRESSION(KIND, name)
#define TARE_LOSS(KIND, name, text, SHAPE, ...) FORMULA_OF_##SHAPE(KIND, name)
#include "losses/losses.def"
#undef TARE_LOSS
#undef FORMULA_OF_SIGMOID
#undef FORMULA_OF_SOFTMAX
#undef FORMULA_OF_REGRESSION

/** A loss that is evaluated in one pass, with the power as a constant (TARE_POWER_2), or looked up at run time (-1).
 *  `weight` is alpha where the formula has a part without it, and 1 elsewhere. */
template <typename Loss, int fixed_power>
struct one_pass {
  using call_type = call;
  using setting_type = setting;
  static constexpr bool uses_plain = Loss::alpha_is_part, backwards = false, scored = false;
  static constexpr bool goes_by_score_rows = Loss::takes_scores; /* whose kernel for rows serves it too */

  __device__ __forceinline__ static bool has_lean_way(const setting &) { return true; }
  __device__ __forceinline__ static setting make(const call &c) { return make_common_setting(c); }
  __device__ __forceinline__ static int power_of(const setting &s) { return fixed_power < 0 ? s.power : fixed_power; }

  /** An element whose target is 0; of a gradient of 16 bits, rough. At -inf it is nothing. */
  template <bool rough>
  __device__ __forceinline__ static exact::pair negative(const setting &s, float x, float weight, int power) {
    if (!rough) return formula<Loss>::hard(-x, weight, 1.0f, &s.parameters, power);
    const approximate::formula_parameters parameters = {s.parameters.gamma_hi, s.parameters.gamma_lo,
                                                        s.parameters.epsilon};
    const approximate::pair value = formula<Loss>::rough(-x, weight, 1.0f, &parameters, power);
    return {value.loss, value.slope};
  }

  /** Any target of 0 or 1. The loss is never rough. */
  template <bool rough>
  __device__ __forceinline__ static exact::pair hard(const setting &s, float x, bool hit, float weight) {
    exact::pair value = formula<Loss>::hard(hit ? x : -x, weight, 1.0f, &s.parameters, power_of(s));
    if (rough && !hit) value.slope = negative<true>(s, x, weight, power_of(s)).slope;
    return value;
  }

  __device__ __forceinline__ static exact::pair soft(const call &, const setting &s, float x, float t, float weight) {
    return formula<Loss>::soft(x, t, weight, 1.0f, &s.parameters, power_of(s));
  }
};

/** Losses whose labels have scores, or a formula of their own; which loss it is, is looked up at run time. Their negatives
 *  are alike: q^gamma*l, whose gradient has a gamma of its own. */
struct score_pass {
  using call_type = call;
  using setting_type = setting;
  using negatives = formula<losses::SIGMOID_VARIFOCAL>;
  static constexpr bool uses_plain = false, backwards = false, scored = true;

  __device__ __forceinline__ static bool has_lean_way(const setting &) { return true; }
  __device__ __forceinline__ static setting make(const call &c) {
    setting s = make_common_setting(c);
    s.parameters.slope_gamma = c.slope_gamma;
    return s;
  }
  __device__ __forceinline__ static int power_of(const setting &s) { return s.power; }

  template <bool rough>
  __device__ __forceinline__ static exact::pair negative(const setting &s, float x, float weight, int power) {
    if (!rough) return negatives::hard(-x, weight, 1.0f, &s.parameters, power);
    const approximate::formula_parameters parameters = {s.parameters.gamma_hi, s.parameters.gamma_lo,
                                                        s.parameters.epsilon, s.parameters.slope_gamma};
    const approximate::pair value = negatives::rough(-x, weight, 1.0f, &parameters, power);
    return {value.loss, value.slope};
  }

  /** Any target, by x. Of a target of 0 the slope is rough, the loss never. */
  template <bool rough>
  __device__ __forceinline__ static exact::pair at_target(const call &c, const setting &s, float x, float target) {
    if (target == 0.0f) {
      exact::pair value = negative<false>(s, x, 1.0f, s.power);
      if (rough) value.slope = negative<true>(s, x, 1.0f, s.power).slope;
      return value;
    }
    switch (c.kind) {
#define FORMULA_OF_SIGMOID(KIND)                                                          \
  case losses::KIND::kind:                                                                \
    if constexpr (losses::KIND::takes_scores) return above_0<losses::KIND>(s, x, target); \
    break;
#define FORMULA_OF_SOFTMAX(KIND)
#define FORMULA_OF_REGRESSION(KIND)
#define TARE_LOSS(KIND, name, text, SHAPE, ...) FORMULA_OF_##SHAPE(KIND)
#include "losses/losses.def"
#undef TARE_LOSS
#undef FORMULA_OF_SIGMOID
#undef FORMULA_OF_SOFTMAX
#undef FORMULA_OF_REGRESSION
      default:
        break;
    }
    return {NAN, NAN}; /* launch_type lets no other kind through */
  }

  template <typename Of>
  __device__ __forceinline__ static exact::pair above_0(const setting &s, float x, float target) {
    if (target != 1.0f) return formula<Of>::soft(x, target, 1.0f, 1.0f, &s.parameters, s.power);
    const exact::pair value = formula<Of>::positive(x, 1.0f, 1.0f, &s.parameters, s.power);
    return {value.loss, -value.slope};
  }
};

template <typename Loss>
using call_of = typename Loss::call_type;
template <typename Loss>
using setting_of = typename Loss::setting_type;

/** What a dense target makes of a weight that is at_0 at t = 0 and at_1 at t = 1: exactly these there. Nothing cancels. */
__device__ __forceinline__ float weight_between(float target, float at_0, float at_1) {
  const float mixed = fmaf(target, at_1, (1.0f - target) * at_0);
  return target == 0.0f ? at_0 : target == 1.0f ? at_1 : mixed;
}

/** What an element weighs: the formula gets `inside`, and what it gives is multiplied by `outside`. */
struct weights {
  float inside, outside;
};

template <typename Loss>
__device__ __forceinline__ weights make_weights_of(float plain, float alpha) {
  return Loss::uses_plain ? weights{alpha, plain} : weights{1.0f, plain * alpha};
}

template <typename Loss>
__device__ __forceinline__ weights weigh(const call &c, const level &l, const tile &t, const setting &s, float of_row,
                                         int32_t row, int64_t cls, float target, float target_of_alpha) {
  float plain = of_row, at_0 = s.at_0, at_1 = s.at_1;
  if (l.view.array[TARE_ELEMENT_WEIGHTS].data)
    plain *= __ldg(static_cast<const float *>(l.view.array[TARE_ELEMENT_WEIGHTS].data) +
                   place(l, t, TARE_ELEMENT_WEIGHTS, row, cls));
  if (s.by_class) {
    if (c.positive_weights) plain *= weight_between(target, 1.0f, __ldg(c.positive_weights + cls));
    if (c.alpha_per_class) at_1 = __ldg(c.alpha_per_class + cls), at_0 = 1.0f - at_1; /* of a float: rounded once */
  }
  return make_weights_of<Loss>(plain, weight_between(target_of_alpha, at_0, at_1));
}

/** Whether weight times factor is a float, so that no slope of 0 becomes NaN by it. */
__device__ __forceinline__ bool has_factor(const setting &s, float weight) {
  return is_ordinary(s.factor) && fabsf(weight * s.factor) <= FLT_MAX;
}

/** Loss and gradient of an element from its unweighted ones; 0 and 0 where its weight is 0, whatever they are. A slope of 0
 *  stays 0 under any weight and factor. */
template <typename T>
__device__ __forceinline__ exact::pair weighted(const call &c, const setting &s, float loss, float slope,
                                                float weight) {
  if (weight == 0.0f) return {0.0f, 0.0f};
  if (!has_factor(s, weight)) return {loss * weight, rescaled<T>(c, slope, weight)};
  return {loss * weight, slope * (weight * s.factor)};
}

/** An element whose target is 1 (`hit`) or 0. Its gradient is the same, bit for bit, as in the lean walks. */
template <typename T, typename Loss>
__device__ __forceinline__ exact::pair hard_element(const call_of<Loss> &c, const setting_of<Loss> &s, float x,
                                                    bool hit, weights w) {
  const exact::pair value = Loss::template hard<sizeof(T) == 2>(s, x, hit, w.inside);
  return weighted<T>(c, s, value.loss, hit ? -value.slope : value.slope, w.outside);
}

template <typename T, typename Loss>
__device__ __forceinline__ exact::pair soft_element(const call_of<Loss> &c, const setting_of<Loss> &s, float x,
                                                    float target, weights w) {
  if (target == 0.0f || target == 1.0f) return hard_element<T, Loss>(c, s, x, target == 1.0f, w);
  const exact::pair value = Loss::soft(c, s, x, target, w.inside);
  return weighted<T>(c, s, value.loss, value.slope, w.outside);
}

/** What a target is to alpha, where a label has a formula of its own. */
__device__ __forceinline__ float target_of_alpha(const call &c, float target, float of_label) {
  return !c.labels_apart ? of_label : target == 0.0f ? 0.0f : 1.0f;
}

/** A score in [0,1]. */
__device__ __forceinline__ float clamped_score(const call &c, const level &l, const tile &t, int32_t row) {
  return fminf(fmaxf(score_at(c, l, t, row), 0.0f), 1.0f); /* NaN becomes 0 */
}

/** An element of a score_pass: a label's target is its score, but it weighs as a label. */
template <typename T, typename Loss>
__device__ __forceinline__ exact::pair scored_element(const call &c, const level &l, const tile &t, const setting &s,
                                                      row_role r, int32_t row, int64_t cls, float x) {
  const bool hit = !c.soft && cls == r.cls;
  const float target = c.soft ? target_at(c, l, t, row, cls) : hit ? clamped_score(c, l, t, row) : 0.0f;
  const float of_label = hit ? 1.0f : target;
  const weights w = weigh<Loss>(c, l, t, s, r.weight, row, cls, of_label, target_of_alpha(c, target, of_label));
  const exact::pair value = Loss::template at_target<sizeof(T) == 2>(c, s, x, target);
  return weighted<T>(c, s, value.loss, value.slope, w.outside);
}

/** Loss and gradient of element (row, cls) of a tile, whatever the target. */
template <typename T, typename Loss, bool soft>
__device__ __forceinline__ exact::pair element(const call_of<Loss> &c, const level &l, const tile &t,
                                               const setting_of<Loss> &s, row_role r, int32_t row, int64_t cls,
                                               float x) {
  if constexpr (Loss::scored) {
    return scored_element<T, Loss>(c, l, t, s, r, row, cls, x);
  } else {
    if (soft) {
      const float target = target_at(c, l, t, row, cls);
      return soft_element<T, Loss>(c, s, x, target, weigh<Loss>(c, l, t, s, r.weight, row, cls, target, target));
    }
    const bool hit = cls == r.cls;
    const float target = hit ? 1.0f : 0.0f;
    return hard_element<T, Loss>(c, s, x, hit, weigh<Loss>(c, l, t, s, r.weight, row, cls, target, target));
  }
}

__device__ __forceinline__ void store_element_loss(const level &l, const tile &t, int32_t row, int64_t cls,
                                                   float loss) {
  const tare_array &a = l.view.array[TARE_ELEMENT_LOSS];
  if (a.data) static_cast<float *>(a.data)[place(l, t, TARE_ELEMENT_LOSS, row, cls)] = loss;
}

/* ---- Vectors that run ahead -------------------------------------------------------------------------------------- */

constexpr int queue_slots = (copies_ahead + 1) * block_threads; /* of all threads of a block */

/** A thread's vectors, one in each of its turns, on their way into shared memory some turns before they are looked at: of
 *  loads that are waited for where they stand, too little is in flight to keep memory busy. A turn begins the copy of the
 *  vector `copies_ahead` turns later; those of the first turns begin before. */
template <cache hint, typename T>
struct vector_queue {
  static constexpr uint32_t slot_bytes = block_threads * sizeof(vector<T>);

  shared_place first, last, now, before; /* slots of this thread: the turn's own, and the one that has become free */

  __device__ __forceinline__ explicit vector_queue(vector<T> (&room)[queue_slots])
      : first(place_in_shared(room + thread_rank())),
        last(first + copies_ahead * slot_bytes),
        now(first),
        before(last) {}
  __device__ __forceinline__ void copy(shared_place to, const T *from, bool is_there) {
    if (is_there) start_copy<hint>(to, from);
    close_copies();
  }
  /** Before the first turn, for each of the first `copies_ahead`. */
  __device__ __forceinline__ void begin(int turn, const T *from, bool is_there) {
    copy(first + uint32_t(turn) * slot_bytes, from, is_there);
  }
  /** At the beginning of a turn: the vector of the turn that follows so many after it. */
  __device__ __forceinline__ void begin_turn(const T *from_ahead, bool is_there) {
    copy(before, from_ahead, is_there);
    wait_for_copies<copies_ahead>();
  }
  /** The turn's vector, if it was there. */
  __device__ __forceinline__ vector<T> vector_of_turn() const { return load_vector_at<T>(now); }
  __device__ __forceinline__ void end_turn() {
    before = now;
    now = now == last ? first : now + slot_bytes;
  }
};

/* ---- Flat: along classes ---------------------------------------------------------------------------------------- */

/** The queue of a tile whose rows follow each other: a thread takes a vector in each turn of its block. */
template <cache hint, typename T>
struct flat_queue : vector_queue<hint, T> {
  static constexpr int32_t step = block_threads * vector<T>::size; /* elements from one turn to the next */

  const T *ahead; /* a turn copies what lies so far from its own */
  int32_t end;    /* the first element of a turn that copies nothing */

  /** `whole`: of so many elements of the tile full vectors are taken. */
  __device__ __forceinline__ flat_queue(vector<T> (&room)[queue_slots], const T *tile, int32_t whole)
      : vector_queue<hint, T>(room) {
    const int32_t mine = int32_t(thread_rank()) * vector<T>::size, last = whole - vector<T>::size;
    for (int k = 0; k < copies_ahead; k++) this->begin(k, tile + mine + k * step, mine + k * step <= last);
    ahead = in_register(tile + copies_ahead * step);
    end = in_register(last + 1 - copies_ahead * step);
  }
  __device__ __forceinline__ void turn_to(int32_t at) { this->begin_turn(ahead + at, at < end); }
};

/** Row and class of an element of a tile whose rows follow each other. */
__device__ __forceinline__ void split(const call &c, const level &l, uint32_t at, int32_t *row, int32_t *cls) {
  const uint32_t classes = uint32_t(c.classes);
  const uint32_t quotient = l.magic ? __umulhi(at, l.magic) : at / classes;
  *row = int32_t(quotient);
  *cls = int32_t(at - quotient * classes);
}

/** A thread's first element in a tile whose rows follow each other, and how far it is to the next: divided once. */
struct flat_steps {
  int32_t row, cls, rows, classes;
};

__device__ __forceinline__ flat_steps make_flat_steps(const call &c, uint32_t size) {
  const uint32_t classes = uint32_t(c.classes), first = thread_rank() * size, step = block_threads * size;
  return {int32_t(first / classes), int32_t(first % classes), int32_t(step / classes), int32_t(step % classes)};
}

/** `n` elements from element `at` of the tile (in order of rows, then classes); adds their loss. */
template <typename T, typename Loss, bool soft>
__device__ __forceinline__ void flat_piece(const call_of<Loss> &c, const level &l, const tile &t,
                                           const setting_of<Loss> &s, const row_role *roles, uint32_t at, int32_t row,
                                           int32_t cls, int n, loss_sum &sum) {
  const tare_array &logits = l.view.array[TARE_LOGITS], &gradient = l.view.array[TARE_GRADIENT];
  const T *const from = static_cast<const T *>(logits.data) + t.offset[TARE_LOGITS] + at;
  T *const to = static_cast<T *>(gradient.data) + t.offset[TARE_GRADIENT] + at;
#pragma unroll 1
  for (int k = 0; k < n; k++) {
    const exact::pair value = element<T, Loss, soft>(c, l, t, s, roles[row], row, cls, to_float(from[k]));
    sum.add(value.loss);
    if (gradient.data) to[k] = from_float<T>(value.slope);
    store_element_loss(l, t, row, cls, value.loss);
    if (++cls == c.classes) cls = 0, row++;
  }
}

/** Whether a row's elements can go the lean way. */
template <typename Loss>
__device__ __forceinline__ bool is_lean(const setting_of<Loss> &s, float of_row) {
  if (Loss::scored && !has_factor(s, of_row * s.at_1)) return false;
  return Loss::has_lean_way(s) && has_factor(s, of_row * (Loss::uses_plain ? 1.0f : s.at_0));
}

/** Loss of a vector of negatives times `shrink`, without choices; they are of one row, or each of its own. Slopes replace
 *  the logits. */
template <typename Loss, bool rough, int power, int rows, int size>
__device__ __forceinline__ float negatives_to_power(const setting_of<Loss> &s, const row_role (&row)[rows],
                                                    float (&x)[size]) {
  const float shared = Loss::uses_plain ? 1.0f : s.at_0;
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < size; k++) {
    const float own = row[rows == 1 ? 0 : k].weight;
    const exact::pair value = Loss::template negative<rough>(s, x[k], Loss::uses_plain ? s.at_0 : 1.0f, power);
    sum = rows == 1 ? fmaf(value.loss, shrink, sum) : fmaf(own * shrink, value.loss, sum);
    x[k] = value.slope * (own * shared * s.factor);
  }
  return (rows == 1 ? sum * row[0].weight : sum) * shared;
}

/** One choice of power for a whole vector. */
template <typename Loss, bool rough, int rows, int size>
__device__ __forceinline__ float negatives(const setting_of<Loss> &s, const row_role (&row)[rows], float (&x)[size]) {
  switch (Loss::power_of(s)) {
    case TARE_POWER_0:
      return negatives_to_power<Loss, rough, TARE_POWER_0>(s, row, x);
    case TARE_POWER_1:
      return negatives_to_power<Loss, rough, TARE_POWER_1>(s, row, x);
    case TARE_POWER_2:
      return negatives_to_power<Loss, rough, TARE_POWER_2>(s, row, x);
    case TARE_POWER_HALF:
      return negatives_to_power<Loss, rough, TARE_POWER_HALF>(s, row, x);
    case TARE_POWER_3_HALVES:
      return negatives_to_power<Loss, rough, TARE_POWER_3_HALVES>(s, row, x);
    default:
      return negatives_to_power<Loss, rough, TARE_POWER_GENERAL>(s, row, x);
  }
}

/** Loss and gradient of element `hit`, the class of its row; its logit becomes one that is nothing to a negative. */
template <typename Loss, int size>
__device__ __forceinline__ exact::pair take_hit(const call_of<Loss> &c, const level &l, const tile &t,
                                                const setting_of<Loss> &s, row_role r, int32_t row, int32_t hit,
                                                float (&x)[size]) {
  float taken = 0.0f;
#pragma unroll
  for (int k = 0; k < size; k++)
    if (k == hit) taken = x[k], x[k] = -INFINITY;
  if constexpr (Loss::scored) {
    const float score = clamped_score(c, l, t, row);
    const float weight = r.weight * (target_of_alpha(c, score, 1.0f) == 0.0f ? s.at_0 : s.at_1);
    const exact::pair value = Loss::template at_target<false>(c, s, taken, score);
    return {value.loss * weight, value.slope * (weight * s.factor)};
  } else {
    const weights w = make_weights_of<Loss>(r.weight, s.at_1);
    const exact::pair value = Loss::template hard<false>(s, taken, true, w.inside);
    return {value.loss * w.outside, -value.slope * (w.outside * s.factor)};
  }
}

__device__ __forceinline__ row_role load_role(shared_place at) {
  const uint2 bits = load_8_bytes(at);
  return {int32_t(bits.x), __uint_as_float(bits.y)};
}

/** A whole vector that lies in one row, where every element of a row has one of two weights, neither 0, and nothing but
 *  loss and gradient is wanted (level::plain): what nearly all elements of nearly all batches are. All are computed as
 *  negatives; the row's class, rarely one of them, is seen to by itself. Adds their loss to a sum. */
template <typename T, typename Loss>
__device__ __forceinline__ void plain_piece(const call_of<Loss> &c, const level &l, const tile &t,
                                            const setting_of<Loss> &s, row_role r, int32_t row, int32_t cls,
                                            const flat_queue<cache::once, T> &queue, T *to, int32_t wants_gradient,
                                            loss_sum &sum) {
  if (r.weight == 0.0f) { /* nothing, even of a NaN */
    if (wants_gradient) store_vector<cache::once>(to, vector<T>{});
    return;
  }
  float x[vector<T>::size];
  widen(queue.vector_of_turn(), x);
  const int32_t hit = r.cls - cls;
  const bool apart = uint32_t(hit) < uint32_t(vector<T>::size);
  T *to_hit = nullptr;
  float slope_of_hit = 0.0f;
  if (apart) {
    const exact::pair value = take_hit<Loss>(c, l, t, s, r, row, hit, x);
    sum.add(value.loss);
    slope_of_hit = value.slope;
    to_hit = to + hit;
  }
  const row_role one[1] = {r};
  sum.add_shrunk(negatives<Loss, sizeof(T) == 2>(s, one, x));
  if (wants_gradient) {
    store_floats<cache::once>(to, x);
    if (apart) *to_hit = from_float<T>(slope_of_hit);
  }
}

/** The loss of this thread's share of a tile: vectors the lean way where they are plain and in one row, element by element
 *  elsewhere. */
template <typename T, typename Loss, bool soft>
__device__ __forceinline__ double flat_tile(const call_of<Loss> &c, const level &l, const tile &t,
                                            const setting_of<Loss> &s, row_role *roles, bool lean,
                                            const flat_steps &steps, flat_queue<cache::once, T> &queue) {
  constexpr uint32_t size = vector<T>::size;
  const tare_array &logits = l.view.array[TARE_LOGITS], &gradient = l.view.array[TARE_GRADIENT];
  const int32_t wants_gradient = in_register(int32_t(gradient.data != nullptr));
  T *const to = in_register(static_cast<T *>(wants_gradient ? gradient.data : logits.data) + t.offset[TARE_GRADIENT]);
  const int32_t classes = in_register(int32_t(c.classes)), elements = in_register(t.rows * classes);
  const int32_t last = in_register(lean ? classes - int32_t(size) : -1); /* where a vector ends its row */
  const shared_place first_role = place_in_shared(roles);
  shared_place role = first_role + uint32_t(steps.row) * sizeof(row_role);
  loss_sum sum;
  int32_t cls = steps.cls;
  for (int32_t at = int32_t(thread_rank() * size); at < elements; at += int32_t(block_threads * size)) {
    queue.turn_to(at);
    if (!soft && cls <= last)
      plain_piece<T, Loss>(c, l, t, s, load_role(role), int32_t((role - first_role) / sizeof(row_role)), cls, queue,
                           to + at, wants_gradient, sum);
    else
      flat_piece<T, Loss, soft>(c, l, t, s, roles, at, int32_t((role - first_role) / sizeof(row_role)), cls,
                                min(int32_t(size), elements - at), sum);
    queue.end_turn();
    role += uint32_t(steps.rows) * sizeof(row_role);
    cls += steps.classes;
    if (cls >= classes) cls -= classes, role += sizeof(row_role);
  }
  return sum.all();
}

/** Skips the rows of a tile that a dense target spoils, before anything of them is computed. By all threads, between two
 *  barriers; ends with a third. */
__device__ __forceinline__ void skip_invalid_rows(const call &c, const level &l, const tile &t, row_role *roles,
                                                  bool reports) {
  const uint32_t elements = uint32_t(t.rows) * uint32_t(c.classes);
  for (uint32_t at = thread_rank(); at < elements; at += block_threads) {
    int32_t row, cls;
    split(c, l, at, &row, &cls);
    if (roles[row].weight != 0.0f && is_invalid_target(c, l, t, row, cls)) roles[row].cls = row_invalid;
  }
  __syncthreads();
  for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) {
    if (roles[row].cls != row_invalid) continue;
    roles[row] = {row_skipped, 0.0f};
    if (reports) report_target(c, l, t, row);
  }
  __syncthreads();
}

/** A row as its label and, in a score_pass, its score make it. */
template <typename Loss>
__device__ __forceinline__ row_role look_at_scored_row(const call &c, const level &l, const tile &t, int32_t row,
                                                       bool reports) {
  const row_role r = look_at_row(c, l, t, row);
  if (!Loss::scored || r.weight == 0.0f || !has_invalid_score(c, l, t, r, row)) return r;
  if (reports) report_target(c, l, t, row);
  return {row_skipped, 0.0f};
}

/** A row, looked at by a warp. */
template <bool soft>
__device__ __forceinline__ row_role look_at_row_of_warp(const call &c, const level &l, const tile &t, int32_t row,
                                                        bool reports) {
  const row_role r = look_at_row(c, l, t, row);
  if (!soft || r.weight == 0.0f || !has_invalid_target(c, l, t, row)) return r;
  if (reports && lane() == 0) report_target(c, l, t, row);
  return {row_skipped, 0.0f};
}

template <typename T>
__device__ __forceinline__ const T *logits_of(const level &l, const tile &t) {
  return static_cast<const T *>(l.view.array[TARE_LOGITS].data) + t.offset[TARE_LOGITS];
}

template <typename T, typename Loss, bool soft>
__device__ __forceinline__ void flat_pass(const call_of<Loss> &c, const setting_of<Loss> &s, row_role *roles,
                                          vector<T> (&room)[queue_slots]) {
  const flat_steps steps = make_flat_steps(c, vector<T>::size);
  for_each_tile<Loss::backwards>(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    const int32_t whole = !soft && l.plain ? t.rows * int32_t(c.classes) : 0;
    flat_queue<cache::once, T> queue(room, logits_of<T>(l, t), whole);
    int wide = 0;
    for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) {
      const row_role r = look_at_scored_row<Loss>(c, l, t, row, true);
      wide |= !is_lean<Loss>(s, r.weight);
      roles[row] = r;
      report_if_invalid(c, l, t, row);
    }
    const bool lean = !__syncthreads_or(wide) && l.plain;
    if (soft) skip_invalid_rows(c, l, t, roles, true);
    return flat_tile<T, Loss, soft>(c, l, t, s, roles, lean, steps, queue);
  });
}

template <typename T, typename Loss, bool soft>
__global__ void __launch_bounds__(block_threads, 4) flat(const TARE_GRID_CONSTANT call_of<Loss> c) {
  TARE_SHARED(row_role[most_flat_rows], roles);
  TARE_SHARED(vector<T>[queue_slots], room);
  const setting_of<Loss> s = Loss::make(c);
  flat_pass<T, Loss, soft>(c, s, roles, room);
  finish_loss(c);
}

/* ---- Planes: along rows, class after class ----------------------------------------------------------------------- */

/** One class of up to a vector of rows; adds their loss. */
template <typename T, typename Loss>
__device__ __forceinline__ void plane_piece(const call_of<Loss> &c, const level &l, const tile &t,
                                            const setting_of<Loss> &s, const row_role (&r)[vector<T>::size],
                                            int32_t row, int64_t cls, int n, loss_sum &sum) {
  const tare_array &logits = l.view.array[TARE_LOGITS], &gradient = l.view.array[TARE_GRADIENT];
  const T *const from = static_cast<const T *>(logits.data) + place(l, t, TARE_LOGITS, row, cls);
  T *const to = gradient.data ? static_cast<T *>(gradient.data) + place(l, t, TARE_GRADIENT, row, cls) : nullptr;
  const bool whole = l.aligned && n == vector<T>::size;
  vector<T> v;
  if (whole)
    v = load_vector<cache::once>(from);
  else
    for (int k = 0; k < vector<T>::size; k++) v.at[k] = k < n ? from[k] : from_float<T>(0.0f);
#pragma unroll
  for (int k = 0; k < vector<T>::size; k++)
    if (k < n) {
      const exact::pair value = element<T, Loss, false>(c, l, t, s, r[k], row + k, cls, to_float(v.at[k]));
      sum.add(value.loss);
      v.at[k] = from_float<T>(value.slope);
      store_element_loss(l, t, row + k, cls, value.loss);
    }
  if (!to) return;
  if (whole)
    store_vector<cache::once>(to, v);
  else
#pragma unroll
    for (int k = 0; k < vector<T>::size; k++)
      if (k < n) to[k] = v.at[k];
}

/** A thread's share of a tile that goes along rows: a vector of rows, and every so many of the classes. */
struct plane_share {
  int32_t row, n; /* n: how many of the rows there are; 0 for a thread without a share */
  uint32_t first, step;
};

template <typename T>
__device__ __forceinline__ plane_share share_of_thread(const tile &t) {
  constexpr int size = vector<T>::size;
  const uint32_t across = uint32_t(t.rows + size - 1) / size;
  plane_share p;
  p.step = across < block_threads ? block_threads / across : 1;
  p.first = thread_rank() / across;
  p.row = int32_t(thread_rank() % across) * size;
  p.n = p.first < p.step ? min(t.rows - p.row, size) : 0;
  return p;
}

/** The queue of such a share. */
template <cache hint, typename T>
struct plane_queue : vector_queue<hint, T> {
  const T *ahead;
  int64_t step; /* of `ahead`, from turn to turn */

  __device__ __forceinline__ plane_queue(vector<T> (&room)[queue_slots], const call &c, const level &l, const tile &t,
                                         const plane_share &p)
      : vector_queue<hint, T>(room), step(p.step * l.view.array[TARE_LOGITS].cls) {
    ahead = static_cast<const T *>(l.view.array[TARE_LOGITS].data) + place(l, t, TARE_LOGITS, p.row, p.first);
    for (int k = 0; k < copies_ahead; k++, ahead += step) this->begin(k, ahead, p.first + k * p.step < c.classes);
  }
  __device__ __forceinline__ void turn_to(const call &c, const plane_share &p, int64_t cls) {
    this->begin_turn(ahead, cls + copies_ahead * p.step < c.classes);
    ahead += step;
  }
};

/** A share of whole vectors in a level that is plain (level::plain), all elements as negatives; a vector that holds its
 *  row's class goes the general way. Adds the loss. */
template <typename T, typename Loss>
__device__ __forceinline__ void plain_planes(const call_of<Loss> &c, const level &l, const tile &t,
                                             const setting_of<Loss> &s, const row_role (&r)[vector<T>::size],
                                             const plane_share &p, vector<T> (&room)[queue_slots], loss_sum &sum) {
  constexpr int size = vector<T>::size;
  const tare_array &gradient = l.view.array[TARE_GRADIENT];
  plane_queue<cache::once, T> queue(room, c, l, t, p);
  T *to = nullptr;
  if (gradient.data) to = static_cast<T *>(gradient.data) + place(l, t, TARE_GRADIENT, p.row, p.first);
  const int64_t to_step = to ? p.step * gradient.cls : 0;
  bool all_count = true;
#pragma unroll
  for (int k = 0; k < size; k++) all_count = all_count && r[k].weight != 0.0f;
  for (int32_t cls = int32_t(p.first); cls < int32_t(c.classes); cls += int32_t(p.step)) {
    queue.turn_to(c, p, cls);
    bool is_plain = true;
#pragma unroll
    for (int k = 0; k < size; k++) is_plain = is_plain && r[k].cls != cls;
    if (is_plain) {
      float x[size];
      widen(queue.vector_of_turn(), x);
      if (!all_count) {
#pragma unroll
        for (int k = 0; k < size; k++) x[k] = r[k].weight == 0.0f ? -INFINITY : x[k]; /* nothing, even of a NaN */
      }
      sum.add_shrunk(negatives<Loss, sizeof(T) == 2>(s, r, x));
      if (to) store_floats<cache::once>(to, x);
    } else {
      plane_piece<T, Loss>(c, l, t, s, r, p.row, cls, size, sum);
    }
    queue.end_turn();
    to += to_step;
  }
}

/** Threads share a tile's rows, a vector each, and its classes, every so many. */
template <typename T, typename Loss>
__device__ __forceinline__ double plane_tile(const call_of<Loss> &c, const level &l, const tile &t,
                                             const setting_of<Loss> &s, vector<T> (&room)[queue_slots]) {
  constexpr int size = vector<T>::size;
  const plane_share p = share_of_thread<T>(t);
  loss_sum sum;
  if (p.n == 0) return 0.0;
  row_role r[size];
  bool lean = l.plain && p.n == size;
#pragma unroll
  for (int k = 0; k < size; k++) {
    r[k] = k < p.n ? look_at_scored_row<Loss>(c, l, t, p.row + k, p.first == 0) : row_role{row_skipped, 0.0f};
    if (k < p.n && p.first == 0) report_if_invalid(c, l, t, p.row + k);
    lean = lean && is_lean<Loss>(s, r[k].weight);
  }
  if (lean) {
    plain_planes<T, Loss>(c, l, t, s, r, p, room, sum);
    return sum.all();
  }
  for (int64_t cls = p.first; cls < c.classes; cls += p.step) plane_piece<T, Loss>(c, l, t, s, r, p.row, cls, p.n, sum);
  return sum.all();
}

template <typename T, typename Loss>
__device__ __forceinline__ void planes_pass(const call_of<Loss> &c, const setting_of<Loss> &s,
                                            vector<T> (&room)[queue_slots]) {
  for_each_tile<Loss::backwards>(c, c.tile_count, &level::tiles,
                                 [&](const level &l, const tile &t) { return plane_tile<T, Loss>(c, l, t, s, room); });
}

template <typename T, typename Loss>
__global__ void __launch_bounds__(block_threads, 2) planes(const TARE_GRID_CONSTANT call_of<Loss> c) {
  TARE_SHARED(vector<T>[queue_slots], room);
  const setting_of<Loss> s = Loss::make(c);
  planes_pass<T, Loss>(c, s, room);
  finish_loss(c);
}

/* ---- Rows: a warp each, any strides ------------------------------------------------------------------------------ */

/** Over a warp, in float where that is enough. */
__device__ __forceinline__ double sum_over_warp(const loss_sum &mine) {
  if (__any_sync(full_mask, mine.large != 0.0f)) return warp_sum(mine.all());
  return double(warp_sum(mine.small));
}

template <typename T, typename Loss, bool soft>
__device__ __forceinline__ double row_of_warp(const call_of<Loss> &c, const level &l, const tile &t,
                                              const setting_of<Loss> &s, int32_t row) {
  const tare_array &logits = l.view.array[TARE_LOGITS], &gradient = l.view.array[TARE_GRADIENT],
                   &row_loss = l.view.array[TARE_ROW_LOSS];
  const row_role r = Loss::scored && !c.soft ? look_at_scored_row<Loss>(c, l, t, row, lane() == 0)
                                             : look_at_row_of_warp<soft>(c, l, t, row, true);
  if (lane() == 0) report_if_invalid(c, l, t, row);
  loss_sum mine;
  for (int64_t cls = lane(); cls < c.classes; cls += warp_size) {
    const float x = to_float(static_cast<const T *>(logits.data)[place(l, t, TARE_LOGITS, row, cls)]);
    const exact::pair value = element<T, Loss, soft>(c, l, t, s, r, row, cls, x);
    mine.add(value.loss);
    if (gradient.data)
      static_cast<T *>(gradient.data)[place(l, t, TARE_GRADIENT, row, cls)] = from_float<T>(value.slope);
    store_element_loss(l, t, row, cls, value.loss);
  }
  const double sum = sum_over_warp(mine);
  if (lane() == 0 && row_loss.data)
    static_cast<float *>(row_loss.data)[place(l, t, TARE_ROW_LOSS, row, 0)] = float(sum);
  return lane() == 0 ? sum : 0.0;
}

template <typename T, typename Loss, bool soft>
__global__ void __launch_bounds__(block_threads, 4) rows(const TARE_GRID_CONSTANT call_of<Loss> c) {
  const setting_of<Loss> s = Loss::make(c);
  for_each_tile<Loss::backwards>(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    double sum = 0.0;
    for (int32_t row = int32_t(thread_rank() / warp_size); row < t.rows; row += block_threads / warp_size)
      sum += row_of_warp<T, Loss, soft>(c, l, t, s, row);
    return sum;
  });
  finish_loss(c);
}

/* ---- Launching --------------------------------------------------------------------------------------------------- */

template <typename T, typename Loss>
cudaError_t launch_loss(const call_of<Loss> &c, const launch_site &site) {
  switch (c.levels[0].walk) { /* all levels go the same way */
    case walk_flat:
      return c.soft ? launch(flat<T, Loss, true>, c.tile_count, site, c)
                    : launch(flat<T, Loss, false>, c.tile_count, site, c);
    case walk_planes:
      return launch(planes<T, Loss>, c.tile_count, site, c);
    default:
      if constexpr (Loss::goes_by_score_rows)
        return launch(rows<T, score_pass, true>, c.tile_count, site, c);
      else
        return c.soft ? launch(rows<T, Loss, true>, c.tile_count, site, c)
                      : launch(rows<T, Loss, false>, c.tile_count, site, c);
  }
}

/** By labels whatever their targets are, and by dense targets where a label has a formula of its own. */
template <typename T>
cudaError_t launch_scores(const call &c, const launch_site &site) {
  switch (c.levels[0].walk) {
    case walk_flat:
      return launch(flat<T, score_pass, false>, c.tile_count, site, c);
    case walk_planes:
      return launch(planes<T, score_pass>, c.tile_count, site, c);
    default:
      return launch(rows<T, score_pass, true>, c.tile_count, site, c);
  }
}

template <typename T>
cudaError_t load_scores() {
  return load_kernels(flat<T, score_pass, false>, planes<T, score_pass>, rows<T, score_pass, true>);
}

template <typename T, typename Loss>
cudaError_t load_loss() {
  const cudaError_t status = load_kernels(flat<T, Loss, true>, flat<T, Loss, false>, planes<T, Loss>);
  if constexpr (Loss::goes_by_score_rows)
    return status;
  else
    return status == cudaSuccess ? load_kernels(rows<T, Loss, true>, rows<T, Loss, false>) : status;
}

/** Calls use(instance) with the instance of a loss for a power. Focal loss has one for gamma 2, which most train with. */
template <typename Loss, typename Use>
cudaError_t with_power(int32_t power, Use &&use) {
  if constexpr (!Loss::has_power) {
    return use(one_pass<Loss, TARE_POWER_0>());
  } else {
    if constexpr (Loss::kind == TARE_LOSS_SIGMOID_FOCAL)
      if (power == TARE_POWER_2) return use(one_pass<Loss, TARE_POWER_2>());
    return use(one_pass<Loss, -1>());
  }
}

template <typename T>
cudaError_t load_type() {
  const cudaError_t loaded = load_scores<T>();
  if (loaded != cudaSuccess) return loaded;
  return for_each_loss<TARE_SHAPE_SIGMOID, TARE_PASSES_ONE>([](auto loss) {
    if constexpr (decltype(loss)::labels_apart) {
      return cudaSuccess;
    } else {
      const auto load = [](auto instance) { return load_loss<T, decltype(instance)>(); };
      const cudaError_t status = with_power<decltype(loss)>(TARE_POWER_2, load);
      return status == cudaSuccess ? with_power<decltype(loss)>(TARE_POWER_GENERAL, load) : status;
    }
  });
}

template <typename T>
cudaError_t launch_type(const call &c, const launch_site &site) {
  return with_loss<TARE_SHAPE_SIGMOID, TARE_PASSES_ONE>(c.kind, [&](auto loss) {
    if constexpr (decltype(loss)::labels_apart) {
      return launch_scores<T>(c, site);
    } else {
      if (c.has_scores) return launch_scores<T>(c, site);
      return with_power<decltype(loss)>(c.power,
                                        [&](auto instance) { return launch_loss<T, decltype(instance)>(c, site); });
    }
  });
}

}  // namespace sigmoid

}  // namespace tare

#endif
