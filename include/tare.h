/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tare: loss kernels for class-imbalanced dense detection. This header is the manual.
 *
 * A call computes a loss, its gradient, or both, on a CPU or an NVIDIA GPU. Five nouns:
 *
 *   context     a device, its threads, and the text of the last error (section 3)
 *   loss spec   which loss, and its parameters (section 4)
 *   batch       the levels of a detector's head: logits, labels, weights, gradients, each with its strides (section 5)
 *   output      the scalar loss, the divisor, the gradient scale, the counts of rows (section 6)
 *   stream      the CUDA stream that the work is put on; some losses also need a workspace (section 7)
 *
 * A complete program, with a simple call of section 2:
 *
 *   #include <stdio.h>
 *   #include <tare.h>
 *
 *   int main(void) {
 *     const float logits[2 * 3] = {2.0f, -1.0f, 0.5f, -3.0f, -2.0f, -4.0f};
 *     const int32_t labels[2] = {0, -1}; // row 0 has class 0, row 1 is background
 *     float loss, gradient[2 * 3];
 *     tare_context_options options;
 *     tare_context_options_init(&options);
 *     options.device = TARE_DEVICE_CPU; // where the arrays are
 *     tare_context *context;
 *     if (tare_context_create(&context, &options) != TARE_STATUS_OK) return puts(tare_error_text(NULL));
 *     tare_status status = tare_sigmoid_focal(context, 2, 3, TARE_DTYPE_F32, logits, labels, 2.0, 0.25,
 *                                             TARE_NORMALIZER_POSITIVES, &loss, gradient, NULL);
 *     if (status == TARE_STATUS_OK) printf("loss %g\n", (double)loss);
 *     tare_context_destroy(context);
 *   }
 *
 *   1. Versions and statuses              errors, element types, normalizers
 *   2. The simple calls                   one contiguous [rows, classes] array
 *   3. Contexts                           device, threads, synchronization
 *   4. The loss                           kinds and their parameters
 *   5. The batch                          levels, strides, labels, targets, weights
 *   6. The output                         scalar loss, normalizer, gradient scale
 *   7. The evaluation                     tare_evaluate, workspace
 *   8. The fused head                     tare_linear_evaluate: classifier and loss without the logits
 *   9. Counts and gradient density        one batch on several machines
 *  10. Class weights and offsets          effective number of samples, logit adjustment
 *  11. Introspection                      names and descriptions of the losses
 *  12. Masks                              dice, Tversky and focal loss on the logits of mask heads
 *  13. Accuracy and limits                error bounds, infinities, ranges
 *
 * Words. A row is one anchor. C is the number of classes. x is a logit, y a label, t a target in [0,1]. For a hard
 * target, z is the signed logit: x where t = 1, -x where t = 0. p = sigmoid(z), q = 1-p and l = -log p. CE(x,t) =
 * max(x,0) - x*t + log1p(e^-|x|) is the cross-entropy of a logit x with target t. softplus(x) is CE(x,0). A "gradient
 * by x" is the gradient with respect to x. GD is the gradient density. A formula that gives a letter another meaning
 * says so.
 *
 * Memory. *Device memory* is memory of the context's GPU; on a CPU context it is ordinary memory. Structs, the array of
 * levels and plain scalars are always in ordinary host memory. So is everything in sections 10 and 11 that is not
 * called device memory. No call prints. Only tare_context_create allocates. (There are two exceptions: the first call
 * of section 8 loads a BLAS, and the first call in a forked child makes threads.) Only tare_context_synchronize waits
 * for work on the device. No call keeps a pointer after the work that it put on the stream has run.
 *
 * Types. Logits are f32, f16, bf16, or f64 (f64 on the CPU only). f16 and bf16 are computed in f32 and rounded once.
 *
 * Determinism. A sum is formed over tiles whose size depends on the shape alone, and tiles are added in order, in
 * double. So a result is bitwise the same from run to run and for any number of threads. The set of requested outputs
 * may change the order of the sum, and so the last bits of the loss. Results of different devices agree up to rounding.
 *
 * Everything here exists since version 0.1 unless its comment says otherwise.
 */
#ifndef TARE_H
#define TARE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define TARE_API
#else
#define TARE_API __attribute__((visibility("default")))
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * 1. Versions and statuses
 * --------------------------------------------------------------------------------------------------------------- */

#define TARE_VERSION_MAJOR 0
#define TARE_VERSION_MINOR 1
#define TARE_VERSION_PATCH 0
#define TARE_VERSION_NUMBER (TARE_VERSION_MAJOR * 10000 + TARE_VERSION_MINOR * 100 + TARE_VERSION_PATCH)

/** @return the version of the loaded library, encoded like TARE_VERSION_NUMBER (0.1.0 is 100). */
TARE_API int32_t tare_version(void);

/**
 * Status of a call. Zero is success. The numbers never change. With any other status no output has been written.
 * tare_error_text then names the argument, its value and the allowed range.
 *
 * There are two exceptions. With TARE_STATUS_INVALID_TARGET every output has been written, as if the invalid rows were
 * ignored. With TARE_STATUS_CUDA_ERROR the outputs and any state are undefined, because some work may already be on the
 * stream. The context stays usable if the device does.
 */
typedef enum tare_status {
  TARE_STATUS_OK = 0,
  /** an argument is NULL, out of range, of a wrong size, or overlaps another; or an enumerator is unknown */
  TARE_STATUS_INVALID_ARGUMENT = 1,
  TARE_STATUS_INVALID_LABEL = 2,       /**< a label is not a class, background or ignore; or its class is excluded */
  TARE_STATUS_UNSUPPORTED = 3,         /**< every argument is valid, but Tare does not compute this combination */
  TARE_STATUS_WORKSPACE_TOO_SMALL = 4, /**< see tare_workspace_size */
  TARE_STATUS_OUT_OF_MEMORY = 5,       /**< no memory: for a context, or for a handle of cuBLAS */
  TARE_STATUS_INVALID_TARGET = 6,      /**< a target or score is NaN or out of range; see tare_batch */
  TARE_STATUS_NOT_BUILT = 20,          /**< CUDA was requested, but the library was built without it */
  TARE_STATUS_NO_DRIVER = 21,          /**< no NVIDIA driver is installed */
  TARE_STATUS_DRIVER_TOO_OLD = 22,     /**< the NVIDIA driver is older than this library's CUDA version needs */
  TARE_STATUS_NO_DEVICE = 23,          /**< the driver has no such GPU, or this build does not support the GPU */
  TARE_STATUS_CUDA_ERROR = 24,         /**< a CUDA call failed; the error text has CUDA's name for it */
  TARE_STATUS_CAPTURING = 25,          /**< this call is not possible while the stream is being captured */
  TARE_STATUS_NO_BLAS = 26             /**< no CBLAS or cuBLAS could be loaded for the fused head */
} tare_status;

/** @return the enumerator's name, such as "TARE_STATUS_INVALID_LABEL", or "unknown status". Never NULL. */
TARE_API const char *tare_status_name(tare_status status);

typedef struct tare_context tare_context;

/**
 * @param context  a context; or NULL for calls of this thread that take no context, such as tare_context_create.
 * @return the text of the last call that failed; empty if none failed. Never NULL. It is valid until the next call on
 *         the same context, or from the same thread.
 */
TARE_API const char *tare_error_text(const tare_context *context);

/** A CUDA stream: a cudaStream_t. NULL is the default stream. A call on a CPU context ignores the stream and returns
 *  when its work is done. */
typedef struct CUstream_st *tare_stream;

/* Enumerations are stored in int32_t fields, so that a struct's layout does not depend on a compiler's choice. */

/* Structs of other versions. A struct begins with struct_size, its own sizeof. The library also reads a shorter struct,
 * of an older version. It must end where a field ends (a tare_level: after an array and its strides). The missing
 * fields get their defaults. The library also reads a longer struct if the bytes beyond this version's are 0. Any other
 * size is TARE_STATUS_INVALID_ARGUMENT. In a struct that the library writes (such as tare_context_description) it reads
 * only struct_size. There, bytes that this version does not know become 0. */

typedef enum tare_dtype { TARE_DTYPE_F32 = 0, TARE_DTYPE_F16 = 1, TARE_DTYPE_BF16 = 2, TARE_DTYPE_F64 = 3 } tare_dtype;
typedef enum tare_label_dtype { TARE_LABEL_DTYPE_I32 = 0, TARE_LABEL_DTYPE_I64 = 1 } tare_label_dtype;

/**
 * The divisor of the loss and its gradient. A row *counts* unless it is ignored or invalid. In a softmax loss a
 * background row counts only if its label is itself a class. A divisor of 0 that is formed from the batch becomes 1. So
 * a batch without rows that count gives 0 and not NaN.
 */
typedef enum tare_normalizer {
  TARE_NORMALIZER_SUM = 0,       /**< no divisor; the only normalizer for GHM, which has a divisor of its own */
  TARE_NORMALIZER_ELEMENTS = 1,  /**< classes x rows that count, without masked elements (softmax: rows that count) */
  TARE_NORMALIZER_ROWS = 2,      /**< rows that count */
  TARE_NORMALIZER_POSITIVES = 3, /**< max(1, rows with a class other than background) */
  TARE_NORMALIZER_WEIGHTS = 4,   /**< sum of row weight x class weight over rows that count (PyTorch's weighted mean) */
  TARE_NORMALIZER_VALUE = 5,     /**< the caller's value, without a clamp: see tare_output::normalizer_value */
  TARE_NORMALIZER_TARGETS = 6,   /**< sum of the targets of rows that count, without weights. The target is the label's
                                      score (1 without scores), or a dense target. Not in GHM losses */
  TARE_NORMALIZER_ONES = 7       /**< number of those targets that are 1 (the centers in CenterNet's heatmaps) */
} tare_normalizer;

/* ------------------------------------------------------------------------------------------------------------------
 * 2. The simple calls
 * --------------------------------------------------------------------------------------------------------------- */

/**
 * Sigmoid cross-entropy. This and the next four functions compute loss and gradient of one contiguous array. They fill
 * the structs of sections 4-6 and call tare_evaluate.
 *
 * @param logits      [rows, classes] of `dtype`, contiguous; device memory.
 * @param labels      int32 [rows]: 0..classes-1, -1 for background, -2 for ignored; device memory.
 * @param alpha       weight of elements with target 1; target 0 has 1-alpha (Lin et al., arXiv 1708.02002, eq. 5).
 *                    In softmax focal loss: a factor of every row. Negative: off.
 * @param normalizer  the divisor; not TARE_NORMALIZER_VALUE.
 * @param loss        float[1]; device memory; or NULL.
 * @param gradient    [rows, classes] of `dtype`, by the logits, of the normalized loss; device memory; may be `logits`
 *                    itself; or NULL.
 * @return as tare_evaluate.
 */
TARE_API tare_status tare_sigmoid_ce(tare_context *context, int64_t rows, int64_t classes, tare_dtype dtype,
                                     const void *logits, const int32_t *labels, double alpha,
                                     tare_normalizer normalizer, float *loss, void *gradient, tare_stream stream);
/**
 * Sigmoid focal loss; other parameters as above.
 * @param gamma  exponent of the modulator q^gamma, in [0,10000].
 * @return as tare_evaluate.
 */
TARE_API tare_status tare_sigmoid_focal(tare_context *context, int64_t rows, int64_t classes, tare_dtype dtype,
                                        const void *logits, const int32_t *labels, double gamma, double alpha,
                                        tare_normalizer normalizer, float *loss, void *gradient, tare_stream stream);
/** Softmax cross-entropy; parameters as above, without alpha. @return as tare_evaluate. */
TARE_API tare_status tare_softmax_ce(tare_context *context, int64_t rows, int64_t classes, tare_dtype dtype,
                                     const void *logits, const int32_t *labels, tare_normalizer normalizer, float *loss,
                                     void *gradient, tare_stream stream);
/** Softmax focal loss; parameters as above. @return as tare_evaluate. */
TARE_API tare_status tare_softmax_focal(tare_context *context, int64_t rows, int64_t classes, tare_dtype dtype,
                                        const void *logits, const int32_t *labels, double gamma, double alpha,
                                        tare_normalizer normalizer, float *loss, void *gradient, tare_stream stream);
/** GHM-C with `bins` unit regions and no momentum (Li et al., arXiv 1811.05181). @return as tare_evaluate. */
TARE_API tare_status tare_ghm_c(tare_context *context, int64_t rows, int64_t classes, tare_dtype dtype,
                                const void *logits, const int32_t *labels, int32_t bins, float *loss, void *gradient,
                                tare_stream stream);

/* ------------------------------------------------------------------------------------------------------------------
 * 3. Contexts
 * --------------------------------------------------------------------------------------------------------------- */

typedef enum tare_device {
  TARE_DEVICE_AUTO = 0, /**< a GPU if there is one, else the CPU; tare_context_describe says why */
  TARE_DEVICE_CPU = 1,
  TARE_DEVICE_CUDA = 2
} tare_device;

typedef struct tare_context_options {
  uint64_t struct_size; /**< sizeof(tare_context_options), set by tare_context_options_init */
  int32_t device;       /**< a tare_device; default AUTO */
  int32_t device_index; /**< CUDA's number of the GPU; -1: the calling thread's current GPU. Default -1 */
  int32_t threads;      /**< CPU threads of one call, 1..1024; 0: OMP_NUM_THREADS, or all processors. Default 0 */
  int32_t reserved;     /**< 0 */
} tare_context_options;

/** Fills the defaults. */
TARE_API void tare_context_options_init_sized(tare_context_options *options, uint64_t struct_size);
#define tare_context_options_init(options) tare_context_options_init_sized((options), sizeof *(options))

/**
 * Makes a context: a device, a fixed scratch area (allocated here, never later), and the text of the last error. A
 * context serves one stream at a time, like a cuBLAS handle: use one context for each stream or thread. A captured
 * graph needs its context until the graph is destroyed. Graphs that may run at the same time need one context each.
 *
 * On a GPU this call also loads the kernels. It may be made during a capture, and adds nothing to the graph. No call on
 * a context changes the calling thread's current device, or makes a CUDA context on another GPU.
 *
 * TARE_DEVICE_AUTO chooses the CPU where TARE_DEVICE_CUDA would return TARE_STATUS_NOT_BUILT, TARE_STATUS_NO_DRIVER,
 * TARE_STATUS_DRIVER_TOO_OLD or TARE_STATUS_NO_DEVICE. A GPU that exists but fails (no memory left, used by another
 * process) is an error. A CPU context could not read the caller's device memory.
 *
 * In a call on a CPU context the calling thread works, and threads of a pool help it. All contexts share the pool. Its
 * threads sleep between calls. `threads` is the largest number of threads for one call, the calling thread included. By
 * default it is the first number of the environment variable OMP_NUM_THREADS. Without one it is the number of
 * processors that the calling thread may use, or fewer where a container's control group has less processor time.
 * tare_context_create adds the threads that the pool lacks. A forked child has a pool of its own, which its first call
 * makes.
 *
 * dlclose does not unload the shared library, because the pool's threads still exist. A plugin that contains the static
 * library needs the linker option -z nodelete for the same reason. CMake's target tare::tare_static and pkg-config
 * --static add it.
 *
 * The environment variable TARE_ISA (baseline, avx2, avx512; on 64-bit ARM baseline, sve) forces an instruction set. An
 * unknown name, or a set that this machine lacks, is TARE_STATUS_INVALID_ARGUMENT.
 *
 * @param context  receives the context; NULL after an error.
 * @param options  NULL for the defaults.
 * @return TARE_STATUS_OK, TARE_STATUS_INVALID_ARGUMENT, TARE_STATUS_OUT_OF_MEMORY or TARE_STATUS_CUDA_ERROR. With
 *         TARE_DEVICE_CUDA also TARE_STATUS_NOT_BUILT, TARE_STATUS_NO_DRIVER, TARE_STATUS_DRIVER_TOO_OLD or
 *         TARE_STATUS_NO_DEVICE. The text is tare_error_text(NULL).
 */
TARE_API tare_status tare_context_create(tare_context **context, const tare_context_options *options);

/** Destroys a context; NULL is a no-op. All work that was submitted with it must have completed. */
TARE_API void tare_context_destroy(tare_context *context);

/**
 * Runs `region(argument)` on `threads` threads at the same time, or on fewer. The calling thread is one of them.
 * Returns when all have returned. `flags` is 0. GOMP_parallel is such a function: that of GNU's OpenMP runtime
 * (libgomp), and that of LLVM's and Intel's (libomp, libiomp5).
 */
typedef void tare_parallel_function(void (*region)(void *), void *argument, unsigned threads, unsigned flags);

/**
 * Makes CPU calls run on the program's own threads instead of the pool's, in the whole process. Use it in a program
 * that computes with OpenMP (as PyTorch does) and calls losses between its loops. OpenMP's threads spin for some
 * milliseconds after a loop, and take the processors from the pool's threads. On the same threads the next loop starts
 * at once.
 *
 * The function gets the number of threads of the call's context. A call with too little work for two threads does not
 * use it. Nor do the next calls after a region that took longer than the calling thread alone would have taken. A
 * forked child uses the pool, because its parent's threads are not there. Results do not depend on it.
 *
 * @param parallel  the function, which must stay loaded; NULL: the pool, as before any call of this function. Calls on
 *                  other threads take it up with their next work.
 */
TARE_API void tare_use_threads(tare_parallel_function *parallel);

typedef struct tare_context_description {
  uint64_t struct_size;
  int32_t device;       /**< TARE_DEVICE_CPU or TARE_DEVICE_CUDA */
  int32_t device_index; /**< the GPU's number; -1 on the CPU */
  int32_t threads;      /**< CPU threads of a call; 0 on a GPU */
  int32_t reserved;
  char device_name[128];    /**< "AMD EPYC ..." or "NVIDIA H100 80GB HBM3" */
  char instruction_set[32]; /**< "baseline", "avx2", "avx512" or "sve"; on a GPU such as "sm_90" */
  char reason[256];         /**< why TARE_DEVICE_AUTO chose the CPU; else empty */
} tare_context_description;

/**
 * Describes a context.
 * @param description  set `description->struct_size` before the call; no other field is read.
 * @return TARE_STATUS_OK or TARE_STATUS_INVALID_ARGUMENT.
 */
TARE_API tare_status tare_context_describe(tare_context *context, tare_context_description *description);

/**
 * Waits for the work on `stream`, and reports errors that were found on the device.
 *
 * On a GPU an invalid row adds nothing and is counted as invalid. This call then reports the first such row since the
 * last call. (On the CPU the evaluation itself returns the error.) Errors of a graph belong to the context that
 * captured it. Synchronize that context, on the stream that the graph was launched on.
 *
 * @return TARE_STATUS_OK; TARE_STATUS_INVALID_LABEL, or else TARE_STATUS_INVALID_TARGET, with a text that names the
 *         first such row; TARE_STATUS_CUDA_ERROR; TARE_STATUS_CAPTURING if `stream` is being captured (the capture goes
 *         on).
 */
TARE_API tare_status tare_context_synchronize(tare_context *context, tare_stream stream);

/* ------------------------------------------------------------------------------------------------------------------
 * 4. The loss
 * --------------------------------------------------------------------------------------------------------------- */

typedef enum tare_loss_kind {
  /* Dense targets. For a target t strictly between 0 and 1, with p = sigmoid(x):
   *   sigmoid CE     CE(x,t) in place of l, gradient p-t
   *   sigmoid focal  also s = p*(1-t) + (1-p)*t in place of q: the loss is alpha_t*s^gamma*CE, with gradient
   *                  alpha_t*s^gamma*(p-t + gamma*(1-2t)*p*(1-p)/s*CE)
   *   Poly-1         adds eps*s^(gamma+1), gradient eps*(gamma+1)*s^gamma*(1-2t)*p*(1-p)
   *   varifocal, quality focal, matchability-aware, IoU-aware: as a label with score t
   *   asymmetric, reduced focal, focal star: t times the loss of a target of 1, plus 1-t times that of a target of 0
   *   softmax CE     -sum t_k*log p_k, gradient (sum t)*p - t */
  TARE_LOSS_SIGMOID_CE = 0,    /**< alpha_t*l per element (alpha-balanced cross-entropy) */
  TARE_LOSS_SIGMOID_FOCAL = 1, /**< alpha_t*q^gamma*l (arXiv 1708.02002, eq. 5) */
  TARE_LOSS_SIGMOID_POLY1 = 2, /**< alpha_t*q^gamma*l + eps*q^(gamma+1) (PolyLoss, arXiv 2204.12511, Poly-1 focal) */
  /** score*CE(x,score) of a label with score > 0, alpha*sigmoid(x)^gamma*l of the other elements (VarifocalNet, arXiv
   *  2008.13367, eq. 2) */
  TARE_LOSS_SIGMOID_VARIFOCAL = 3,
  /** alpha_t*|sigmoid(x)-t|^beta*CE(x,t), t the score of a label, else 0 (Generalized Focal Loss, arXiv 2006.04388,
   *  eq. 2) */
  TARE_LOSS_SIGMOID_QUALITY_FOCAL = 4,
  /** CE(x,score^gamma) of a label, alpha*sigmoid(x)^gamma*l of the other elements (DEIM's matchability-aware loss,
   *  arXiv 2412.04234) */
  TARE_LOSS_SIGMOID_MATCHABILITY = 5,
  /** CE(x,t) of a label, with t = max(sigmoid(x)^a*score^(1-a),0.01); sigmoid(x)^gamma*l of the other elements
   *  (Align-DETR's IA-BCE, arXiv 2304.07527) */
  TARE_LOSS_SIGMOID_IOU_AWARE = 6,
  /** q^gamma_positive*l of a label, r^gamma_negative*(-log(1-r)) of the other elements, r = max(sigmoid(x)-margin,0)
   *  (arXiv 2009.14119, eq. 7) */
  TARE_LOSS_SIGMOID_ASYMMETRIC = 7,
  /** q^gamma*l where t = 1, (1-t)^beta*sigmoid(x)^gamma*softplus(x) elsewhere (CornerNet, arXiv 1808.01244, eq. 1;
   *  CenterNet; CenterPoint) */
  TARE_LOSS_SIGMOID_HEATMAP_FOCAL = 8,
  /** alpha_t*l where p < threshold, else alpha_t*(q/threshold)^gamma*l (arXiv 1903.01347, eq. 2) */
  TARE_LOSS_SIGMOID_REDUCED_FOCAL = 9,
  TARE_LOSS_SOFTMAX_CE = 10,             /**< -log softmax(x)_y per row */
  TARE_LOSS_SOFTMAX_FOCAL = 11,          /**< alpha*(1-p)^gamma*(-log p), p = softmax(x)_y, per row */
  TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED = 12, /**< -log softmax(x + offset)_y per row (arXiv 2007.07314, eq. 10) */
  /** -alpha_t*log sigmoid(g*z+b)/g (FL*, arXiv 1708.02002, appendix A) */
  TARE_LOSS_SIGMOID_FOCAL_STAR = 13,
  /** -log softmax(z)_y per row, z_j = x_j + log S_j of the classes that are not the label (arXiv 2008.10032, eq. 4) */
  TARE_LOSS_SOFTMAX_SEESAW = 14,
  /** -(k+1-y)*log p_k - (y-k)*log p_(k+1), y the row's target, k = floor(y) (Generalized Focal Loss, arXiv 2006.04388,
   *  eq. 6) */
  TARE_LOSS_SOFTMAX_DISTRIBUTION_FOCAL = 16,
  /** -w_left*log p_k - w_right*log p_(k+1), k the label (D-FINE's FGL, arXiv 2410.13842) */
  TARE_LOSS_SOFTMAX_TWO_HOT = 17,
  /** -log softmax(z)_y per row, z = s*(x - margin_y*onehot) (LDAM, arXiv 1906.07413, section 3.2) */
  TARE_LOSS_SOFTMAX_LDAM = 18,
  TARE_LOSS_GHM_C = 20, /**< sum of CE/GD(g), g = |sigmoid(x)-t| (arXiv 1811.05181, eq. 9) */
  TARE_LOSS_GHM_R = 21  /**< sum of ASL1/GD(g), g = |d|/sqrt(d^2+mu^2), d = prediction-target (eq. 12) */
} tare_loss_kind;

/**
 * Label smoothing s. In sigmoid CE and sigmoid focal loss the targets 1 and 0 become 1-s/2 and s/2. With h = s/2, the
 * cross-entropy is l + h*z.
 *
 * With TARE_SMOOTHED_CROSS_ENTROPY the loss is alpha_t*q^gamma*(l + h*z), with gradient -alpha_t*q^gamma*(q - h +
 * gamma*p*(l + h*z)) by z. Here alpha_t and q are those of the target before smoothing (apex, EfficientDet). With
 * TARE_SMOOTHED_ALL they follow the smoothed target t: alpha_t = t*alpha + (1-t)*(1-alpha), and the modulator is that
 * of dense targets.
 *
 * In softmax CE and softmax focal loss the target of the label becomes 1-s+s/C, and that of every other class s/C. The
 * loss is alpha*m^gamma*CE, with CE = -sum t_k*log p_k and m = 1-p_y. With TARE_SMOOTHED_ALL m = 1 - sum t_k*p_k. Its
 * gradient by x_k is alpha*(m^gamma*(p_k-t_k) + CE*gamma*m^(gamma-1)*dm/dx_k). Softmax CE has no modulator, and so no
 * TARE_SMOOTHED_ALL. The class weight is that of the label. (PyTorch's cross_entropy weighs the smoothed part with the
 * weights of all classes instead.)
 *
 * Infinities of a smoothed loss. At z = -inf the loss is +inf. At z = +inf it is +inf with gamma 0 or
 * TARE_SMOOTHED_ALL, and else 0. A softmax loss is also +inf where the logit of any class is -inf. With label
 * smoothing, dense targets and scores are TARE_STATUS_UNSUPPORTED. So is alpha_per_class with TARE_SMOOTHED_ALL.
 * Counts, class sums and positive weights are those of the label, except with TARE_WEIGHTING_TERMS.
 */
typedef enum tare_smoothed {
  TARE_SMOOTHED_CROSS_ENTROPY = 0, /**< the cross-entropy alone */
  TARE_SMOOTHED_ALL = 1            /**< the cross-entropy, the modulator and alpha */
} tare_smoothed;

/**
 * What positive and negative weights w and v (1 where tare_batch has none) are at a target t between 0 and 1. At
 * targets of 0 and 1 both are the same. l is the loss of a target of 1, -log p, and l0 that of 0, -log(1-p).
 *
 * TERMS is the pos_weight of PyTorch's binary_cross_entropy_with_logits. Its gradient by x is v*(1-t)*p - w*t*(1-p). t
 * is a dense target, a label's score, or a smoothed target: so with label smoothing every element has both terms.
 */
typedef enum tare_weighting {
  TARE_WEIGHTING_BLENDED = 0, /**< (t*w + (1-t)*v) * (t*l + (1-t)*l0); of a label it is w, whatever its score is */
  TARE_WEIGHTING_TERMS = 1    /**< w*t*l + v*(1-t)*l0 */
} tare_weighting;

typedef struct tare_ce_parameters {
  /** alpha_t = t*alpha + (1-t)*(1-alpha), with 1-alpha formed in double and rounded once; in [0,1]; negative: off.
   *  Default off (-1) */
  double alpha;
  /** [classes], each in [0,1] (not checked), instead of `alpha`; device memory; or NULL */
  const float *alpha_per_class;
  double label_smoothing; /**< s: see tare_smoothed; in [1e-30,1), or 0 (default) for none */
  int32_t smoothed;       /**< a tare_smoothed; default TARE_SMOOTHED_CROSS_ENTROPY */
  /** a tare_weighting; default TARE_WEIGHTING_BLENDED. Softmax CE has no such weights: BLENDED */
  int32_t weighting;
  /** Softmax CE: z-loss adds z_loss*LSE^2 to a row's loss, LSE = log sum_k e^x_k, and 2*z_loss*LSE*p_k to its gradient
   *  by x_k, p = softmax(x) (ST-MoE, arXiv 2202.08906, eq. 5; PaLM, arXiv 2204.02311, section 5). The row's weight
   *  multiplies this part too. Label smoothing does not change it. In [0,1e6]; default 0. Above 0, dense targets are
   *  TARE_STATUS_UNSUPPORTED. Sigmoid CE: 0 */
  double z_loss;
} tare_ce_parameters;

/** Sigmoid focal: alpha is as in tare_ce_parameters, default 0.25. Softmax focal: alpha, in [0,1e30], multiplies every
 *  row, and alpha_per_class[y] multiplies a row with label y. There is no 1-alpha. Default off (-1). */
typedef struct tare_focal_parameters {
  double alpha;
  const float *alpha_per_class;
  double gamma; /**< [0,10000]; default 2. 0 is cross-entropy. 0, 1, 2 need no power; 0.5, 1.5 only a square root */
  double label_smoothing; /**< as in tare_ce_parameters */
  int32_t smoothed;       /**< a tare_smoothed; default TARE_SMOOTHED_CROSS_ENTROPY */
  int32_t reserved;       /**< 0 */
  /** sigmoid focal: [classes], each in [0,10000] (not checked), instead of `gamma`; device memory; or NULL. Not with
   *  label smoothing */
  const float *gamma_per_class;
} tare_focal_parameters;

typedef struct tare_poly1_parameters {
  double alpha; /**< a factor of the focal part only; with alpha_t = 0 the other part remains; default off (-1) */
  const float *alpha_per_class;
  double gamma;   /**< [0,10000]; default 2 */
  double epsilon; /**< coefficient of q^(gamma+1), in [-1e30,1e30]; default 1 */
} tare_poly1_parameters;

typedef enum tare_modulator {
  TARE_MODULATOR_DIFFERENTIATED = 0, /**< the gradient is that of the loss's value */
  TARE_MODULATOR_DETACHED = 1        /**< the gradient treats the modulator as a constant */
} tare_modulator;

/** Which elements are the positives of varifocal loss. */
typedef enum tare_positives {
  TARE_POSITIVES_BY_SCORE = 0, /**< labels with a score above 0 */
  TARE_POSITIVES_BY_LABEL = 1  /**< all labels */
} tare_positives;

/**
 * Varifocal loss. Here p = sigmoid(x). Scores (tare_batch) are the quality of the labels' boxes; without scores each is
 * 1. A label with a score above 0 has loss score*CE(x,score) and gradient score*(p-score). It uses neither alpha nor
 * gamma. Every other element is a negative, with loss alpha*p^gamma*softplus(x). A dense target above 0 is computed as
 * a score, and 0 as a negative. With a differentiated modulator (the paper, mmdetection, PaddleDet, Ultralytics) the
 * gradient of a negative is alpha*p^gamma*(p + gamma*(1-p)*softplus(x)). With a detached modulator (RT-DETR, D-FINE,
 * DEIM) it is alpha*p^(gamma+1).
 *
 * A label with score 0 is computed as a negative with TARE_POSITIVES_BY_SCORE (mmdetection). With
 * TARE_POSITIVES_BY_LABEL its loss and gradient are 0 (RT-DETR, D-FINE). In both cases the row is a positive in counts,
 * and the element keeps its positive weight. Dense targets have no labels, so TARE_POSITIVES_BY_LABEL is then
 * TARE_STATUS_UNSUPPORTED.
 */
typedef struct tare_varifocal_parameters {
  double alpha;      /**< [0,1e30], a factor of the negatives; negative: off. Default 0.75 */
  double gamma;      /**< [0,10000]; default 2. Powers cost as in tare_focal_parameters */
  int32_t modulator; /**< a tare_modulator; default TARE_MODULATOR_DIFFERENTIATED */
  int32_t positives; /**< a tare_positives; default TARE_POSITIVES_BY_SCORE */
} tare_varifocal_parameters;

/**
 * Quality focal loss. At the label's element the target t is the label's score (1 without scores). At every other
 * element it is 0. The loss is alpha_t*s^beta*CE(x,t), with p = sigmoid(x) and s = |p-t|. The gradient is
 * alpha_t*(s^beta*(p-t) + beta*s^(beta-1)*sgn(p-t)*p*(1-p)*CE). Where p = t the gradient is 0 for every beta. A label
 * has the alpha_t of target 1, whatever its score is. A dense target has the alpha_t of focal loss. The paper has no
 * alpha. With an alpha this is the position-supervised loss of Stable-DINO (arXiv 2304.04742). Without scores it is
 * focal loss.
 */
typedef struct tare_quality_focal_parameters {
  double alpha; /**< as in tare_ce_parameters; default off (-1) */
  const float *alpha_per_class;
  double beta; /**< [0,10000]; default 2. Powers cost as in tare_focal_parameters */
} tare_quality_focal_parameters;

/**
 * Matchability-aware loss, with p = sigmoid(x). A label has the loss CE(x,t) with the target t = score^gamma (1 without
 * scores), and the gradient p-t. A score of 0 is no exception. Every other element is a negative, with loss
 * alpha*p^gamma*softplus(x). With a detached modulator (DEIM) its gradient is alpha*p^(gamma+1), else that of varifocal
 * loss. A dense target above 0 is computed as a score, and 0 as a negative.
 */
typedef struct tare_matchability_parameters {
  double alpha;      /**< [0,1e30], a factor of the negatives; negative: off. Default off (-1) */
  double gamma;      /**< [0,10000]; default 1.5 */
  int32_t modulator; /**< a tare_modulator; default TARE_MODULATOR_DETACHED */
  int32_t reserved;  /**< 0 */
} tare_matchability_parameters;

/**
 * IoU-aware cross-entropy (IA-BCE), with p = sigmoid(x) and a = p_exponent. A label has the loss CE(x,t) with the
 * target t = max(p^a*score^(1-a), 0.01); the score is 1 without scores. The gradient is p-t: it treats t as a constant.
 * Every other element is a negative, with loss p^gamma*softplus(x) and a differentiated modulator. A dense target above
 * 0 is computed as a score, and 0 as a negative. LW-DETR, RF-DETR and SAM 3 train with it.
 */
typedef struct tare_iou_aware_parameters {
  double gamma;      /**< [0,10000]; default 2 */
  double p_exponent; /**< a, in [0,1]; default 0.25. 0: the target is the score; 1: it is p */
} tare_iou_aware_parameters;

/**
 * Asymmetric loss. A label has loss q^gamma_positive*l. Every other element is a negative. With r = max(p-margin, 0)
 * and p = sigmoid(x) its loss is r^gamma_negative*(-log(1-r)). Its gradient is p*(1-p)*r^gamma_negative*(1/(1-r) +
 * gamma_negative*(-log(1-r))/r). Where p is below the margin, loss and gradient are exactly 0. With a detached
 * modulator the gradient treats q^gamma_positive and r^gamma_negative as constants (Alibaba's ASL). timm differentiates
 * them. Multi-label targets are dense targets of 0 or 1. A target between 0 and 1, or such a score, mixes both losses:
 * see tare_loss_kind.
 */
typedef struct tare_asymmetric_parameters {
  double gamma_positive; /**< [0,10000]; default 1 */
  double gamma_negative; /**< [0,10000]; default 4 */
  double margin;         /**< [1e-6,1], or 0; default 0.05. With a margin, 1-p below 1.2e-38 counts as 0 */
  int32_t modulator;     /**< a tare_modulator; default TARE_MODULATOR_DIFFERENTIATED */
  int32_t reserved;      /**< 0 */
} tare_asymmetric_parameters;

/**
 * Heatmap focal loss. Dense targets are a heatmap with a peak of exactly 1 at each object and values below 1 around it.
 * With p = sigmoid(x), a peak has loss (1-p)^gamma*(-log p). Every other element is a negative, with loss
 * (1-t)^beta*p^gamma*softplus(x) and gradient (1-t)^beta*p^gamma*(p + gamma*(1-p)*softplus(x)). With labels, the
 * label's element is a peak, and t is 0 elsewhere. That is focal loss. The papers write alpha for gamma.
 *
 * The positive weight of a class applies to its peaks alone. Scores, and targets of f16 and bf16, are
 * TARE_STATUS_UNSUPPORTED. In 16 bits a target near a peak rounds to 1, and would be a peak. f64 targets with narrower
 * logits are rounded to f32.
 */
typedef struct tare_heatmap_focal_parameters {
  double gamma; /**< [0,10000]; default 2 */
  double beta;  /**< [0,10000]; default 4 */
} tare_heatmap_focal_parameters;

/** Reduced focal loss. The gradient by z is -alpha_t*q where p < threshold, else -alpha_t*(q/threshold)^gamma*(q +
 *  gamma*p*l). */
typedef struct tare_reduced_focal_parameters {
  double alpha; /**< as in tare_ce_parameters; default off (-1) */
  const float *alpha_per_class;
  double gamma;     /**< [0,10000]; default 2 */
  double threshold; /**< [0.5,1]; default 0.5. 1 is cross-entropy; with others the loss jumps at p = threshold */
} tare_reduced_focal_parameters;

/** Focal loss star: the cross-entropy of g*z + b, divided by g. Its gradient by z is -alpha_t*sigmoid(-g*z-b). */
typedef struct tare_focal_star_parameters {
  double alpha; /**< as in tare_ce_parameters; default off (-1) */
  const float *alpha_per_class;
  double steepness; /**< g, the paper's gamma; [0.1,10000]; default 2 */
  double shift;     /**< b, the paper's beta; [-10000,10000]; default 1 */
} tare_focal_star_parameters;

/**
 * Logit-adjusted softmax cross-entropy: softmax CE of z_c = x_c + offset_c. The gradient by x is softmax(z) - onehot.
 *
 *   logit adjustment  offset_c = tau*log(prior_c) (Menon et al., arXiv 2007.07314, eq. 10)
 *   balanced softmax  tau = 1, prior_c = n_c/sum n (Ren et al., arXiv 2007.10740)
 *
 * tare_logit_adjustment (section 10) makes these offsets from class counts. A constant added to all offsets changes
 * nothing. Use the offsets in training only, and the plain logits at inference.
 *
 * z is formed in f32 (f64 logits: in double) and rounded once. A z beyond its type's range is infinite. An offset of
 * +inf or NaN acts like a logit of +inf or NaN. Offsets are not checked.
 *
 * An offset of -inf excludes its class: z is -inf, even if the logit is NaN. The class then has probability 0 and
 * gradient 0. A label of an excluded class is invalid, as a label that is no class: see TARE_STATUS_INVALID_LABEL and
 * tare_counts. So is the background label where background is an excluded class. Of a row with dense targets, the
 * target of an excluded class must be 0. Any other makes the row invalid: see tare_batch.
 */
typedef struct tare_logit_adjusted_parameters {
  const float *offset; /**< [classes]; device memory; NULL (default): no offsets, which is softmax CE */
  double z_loss;       /**< as in tare_ce_parameters; LSE is that of z, and so it has no excluded class */
} tare_logit_adjusted_parameters;

/**
 * Label-distribution-aware margin loss (LDAM) of a row with label y: softmax CE of z_y = s*(x_y - margin_y) and, for
 * every other class j, z_j = s*x_j. The gradient by x is s*(softmax(z) - onehot) (Cao et al., arXiv 1906.07413,
 * section 3.2; the authors' LDAMLoss). Logits are cosines: products of normalized features and normalized weights. Any
 * other logits are computed as well. There are no dense targets.
 *
 * tare_ldam_margins (section 10) makes margins from class counts. The authors divide by the sum of class weights:
 * TARE_NORMALIZER_WEIGHTS. Deferred re-weighting gives class weights from an epoch on, and none before.
 *
 * For f32, f16 and bf16 logits s is rounded to f32. z is not formed: a row needs s*(x_j - m) alone, m the largest logit
 * off the label. So rounding is that of a difference, however large s*x is. A margin of +inf excludes its class, as an
 * offset of -inf does in logit adjustment. A label of this class is then invalid. Margins are not checked.
 */
typedef struct tare_ldam_parameters {
  const float *margins; /**< [classes]; device memory; NULL (default): none */
  double scale;         /**< s, in [1e-6,1e6]; default 30 */
} tare_ldam_parameters;

/**
 * Seesaw loss. For a row with label y it is softmax CE of z, where z_y = x_y. Every other class j has z_j = x_j + log
 * S_j, with
 *
 *   log S_j = p*min(0, log n_j - log n_y) + q*max(0, x_j - max(x_y, LSE(x) + log epsilon))
 *
 * LSE(x) = log sum_k e^x_k. p and q are the exponents of the paper, tare_seesaw_parameters::p and q. The first term
 * (mitigation) spares classes that are rarer than the label. The second term (compensation) gives more weight to
 * classes that are more probable than the label. The gradient treats S as a constant: it is softmax(z) - onehot (Wang
 * et al., arXiv 2008.10032, eq. 4 to 6; mmdetection's SeesawLoss).
 *
 * n_c is the number of rows of class c so far, at least 1. tare_class_balance (section 10) keeps these counts on the
 * device and writes their logarithms, log_counts. Count the labels of a batch before its loss. The loss itself counts
 * nothing, so a loss that is computed again is the same. Background rows add nothing unless background is a class.
 *
 * z is formed in f32 (f64 logits: in double). A z beyond its type's range is infinite. A log count of -inf removes its
 * class from all rows with another label. A label of this class stays valid: it counts itself, so that n_c is at least
 * 1. Log counts are not checked. Seesaw loss takes no dense targets and no label smoothing.
 */
typedef struct tare_seesaw_parameters {
  const float *log_counts; /**< log n: [classes]; device memory; NULL (default): no mitigation */
  double p;                /**< [0,10000]; default 0.8. 0: no mitigation */
  double q;                /**< [0,10000]; default 2. 0: no compensation */
  double epsilon;          /**< the smallest p_y in the ratio p_j/p_y, in (0,1]; default 0.01 */
} tare_seesaw_parameters;

/**
 * Distribution focal loss. The classes are bins: the whole distances 0, 1, ..., C-1 from an anchor to a side of its
 * box. A row's target y is a number between two bins, which the row's score gives. y is clamped to [0, C-1-delta]. The
 * upper end is rounded to f32 (f64 logits: to double). With k = floor(y), bin k has the target k+1-y, and bin k+1 the
 * target y-k. The gradient is softmax - target. There is no factor 1/4 for the four sides of a box. A whole y gives the
 * loss and the gradient of softmax CE with label y, up to rounding. y = C-1 uses the last bin alone.
 *
 * A score is any finite number, of tare_batch::score_dtype. f64 scores need f64 logits. Either all levels have scores
 * or none. With scores, labels only say which rows count, as in GHM-R: rows with a label >= first_label, other than
 * background_label and ignore_label. So the label may be the class of the box. Such rows are positives. Without labels
 * all rows are positives. With scores a row has no class among the bins, so class weights, class sums and a selection
 * are TARE_STATUS_UNSUPPORTED. Without scores y is the label.
 */
typedef struct tare_distribution_focal_parameters {
  double delta; /**< distance from the largest target to the last bin, in [0,1]; default 0. Ultralytics has 0.01 */
} tare_distribution_focal_parameters;

/**
 * Two-hot cross-entropy, such as D-FINE's fine-grained localization loss. The classes are bins, and a row's label is
 * the left bin k. Each row has two scores in [0,1e30]: w_left of bin k and w_right of bin k+1.
 * tare_level::scores_strides::cls is the distance from w_left to w_right. The target is w_left at bin k, w_right at bin
 * k+1, and 0 elsewhere. The gradient is (w_left+w_right)*softmax - target. The row weight and the label's class weight
 * multiply both scores. Where one score is 0, loss and gradient are those of softmax CE with the other bin as label,
 * times the other score. A row with two scores of 0 counts and adds nothing. If the label is the last bin, w_right must
 * be 0; else the row is invalid.
 *
 * Scores are of tare_batch::score_dtype; f64 scores need f64 logits. Either all levels have scores or none. With
 * scores, class sums and a selection are TARE_STATUS_UNSUPPORTED. Without scores w_left is 1 and w_right is 0.
 */
typedef struct tare_two_hot_parameters {
  uint64_t reserved; /**< 0 */
} tare_two_hot_parameters;

typedef enum tare_ghm_density {
  TARE_GHM_DENSITY_UNIT_REGION = 0, /**< `bins` equal bins of g; GD = count*bins */
  TARE_GHM_DENSITY_EXACT = 1 /**< by sorting: #{k: |g_k-g| <= eps/2}, divided by the window's length inside [0,1] */
} tare_ghm_density;

typedef enum tare_ghm_variant {
  TARE_GHM_VARIANT_PAPER = 0,
  /** mmdetection's GHMC and GHMR. Edges are (float)(k/bins). Weights are divided by the number of non-empty bins
   *  instead of `bins`. Momentum sums start at 0, and those of empty bins do not change */
  TARE_GHM_VARIANT_MMDET = 1
} tare_ghm_variant;

/**
 * GHM-C and GHM-R. The gradient treats GD, and so beta = N/GD, as a constant. N is a number of elements: classes x rows
 * that count and have a row weight > 0. In GHM-C, background rows count too. In GHM-R they do not. A row weight is only
 * a mask. Class, element and positive weights are TARE_STATUS_UNSUPPORTED. So is any normalizer but
 * TARE_NORMALIZER_SUM.
 *
 * Unit regions are the bins. For hard targets the bin of an element is exact. Thresholds on the logit decide it: tau_k
 * is the first value of the logits' type whose exact gradient norm reaches k/bins. So the counts are the same on every
 * backend. GHM-R compares |d| in double. mmdetection's edges are floats for every type of logits. g = 1 is in the last
 * bin. NaN is in the first bin (the exact density treats it as g = 0). An element with a dense target of exactly 0 or 1
 * is in the bin of that hard target. For a target between 0 and 1, g itself is compared with k/bins: in double on the
 * CPU, in f32 on a GPU. So an element within rounding of an edge may be on either side.
 *
 * Exact density. The window includes both ends. Its length is min(g, eps/2) + min(1-g, eps/2). g and 1-g are formed
 * separately in double, each with a relative error of about 4e-16. The difference of two gradient norms is formed from
 * the smaller of g and 1-g. If eps is below the spacing of g, a window has only elements of equal g. For a target
 * between 0 and 1, g is |p-t|: in double on the CPU, in f32 on a GPU.
 *
 * State. `state` is device memory of tare_ghm_state_bytes(bins) bytes, aligned to 8 bytes. The caller owns it. A fresh
 * state is all zero bytes. It may be copied, saved and restored as bytes. In 8-byte words:
 *
 *   [0]                      int64   steps taken with momentum; stays at 2^63-1; a negative number counts as 0
 *   [1]                      int64   N of the last histogram
 *   [2 .. 2+bins)            int64   counts of the last histogram
 *   [2+bins .. 2+2*bins)     double  S: momentum sums; without momentum, the counts of the last batch with N > 0
 *   [2+2*bins .. 2+3*bins)   double  1/GD of each bin; 0 where S is 0: such an element adds nothing and has a gradient
 *                                    of 0, even if its logit is NaN
 *
 * If `state` is NULL, the context's own scratch area is used. That is enough without momentum and on one machine.
 *
 * A batch with N = 0 is not a step. N and the counts become 0, and the loss is 0. S, 1/GD and the steps do not change.
 * On several machines the sum of their N is what counts. tare_ghm_density_update reads it from the state.
 *
 * One state serves all levels of a batch together, as the paper's N requires. mmdetection calls its module for each
 * level, and updates the sums each time.
 */
typedef struct tare_ghm_parameters {
  int32_t bins;               /**< 1..1024; default 30 for GHM-C, 10 for GHM-R */
  int32_t density;            /**< a tare_ghm_density; default TARE_GHM_DENSITY_UNIT_REGION */
  int32_t variant;            /**< a tare_ghm_variant; default TARE_GHM_VARIANT_PAPER */
  int32_t use_stored_density; /**< 1: use 1/GD from `state` unchanged (tare_ghm_density_update); default 0 */
  double momentum; /**< m in [0,1): S = count on the first step, then m*S+(1-m)*count; > 0 needs `state`. Default 0 */
  double epsilon;  /**< eps, the window of the exact density, in (0,2]; default 0.1 */
  double mu;       /**< GHM-R only, in [1e-30, 1e30]; default 0.02 */
  void *state;     /**< see above; default NULL */
} tare_ghm_parameters;

typedef struct tare_loss_spec {
  uint64_t struct_size;
  int32_t kind;     /**< a tare_loss_kind; it selects the member of the union */
  int32_t reserved; /**< 0, like the parts of the union that the loss does not use */
  union {
    tare_ce_parameters ce;                         /**< TARE_LOSS_SIGMOID_CE; TARE_LOSS_SOFTMAX_CE has no alpha */
    tare_focal_parameters focal;                   /**< TARE_LOSS_SIGMOID_FOCAL, TARE_LOSS_SOFTMAX_FOCAL */
    tare_poly1_parameters poly1;                   /**< TARE_LOSS_SIGMOID_POLY1 */
    tare_varifocal_parameters varifocal;           /**< TARE_LOSS_SIGMOID_VARIFOCAL */
    tare_quality_focal_parameters quality_focal;   /**< TARE_LOSS_SIGMOID_QUALITY_FOCAL */
    tare_matchability_parameters matchability;     /**< TARE_LOSS_SIGMOID_MATCHABILITY */
    tare_iou_aware_parameters iou_aware;           /**< TARE_LOSS_SIGMOID_IOU_AWARE */
    tare_asymmetric_parameters asymmetric;         /**< TARE_LOSS_SIGMOID_ASYMMETRIC */
    tare_heatmap_focal_parameters heatmap_focal;   /**< TARE_LOSS_SIGMOID_HEATMAP_FOCAL */
    tare_reduced_focal_parameters reduced_focal;   /**< TARE_LOSS_SIGMOID_REDUCED_FOCAL */
    tare_focal_star_parameters focal_star;         /**< TARE_LOSS_SIGMOID_FOCAL_STAR */
    tare_logit_adjusted_parameters logit_adjusted; /**< TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED */
    tare_seesaw_parameters seesaw;                 /**< TARE_LOSS_SOFTMAX_SEESAW */
    tare_distribution_focal_parameters distribution_focal; /**< TARE_LOSS_SOFTMAX_DISTRIBUTION_FOCAL */
    tare_two_hot_parameters two_hot;                       /**< TARE_LOSS_SOFTMAX_TWO_HOT */
    tare_ldam_parameters ldam;                             /**< TARE_LOSS_SOFTMAX_LDAM */
    tare_ghm_parameters ghm;                               /**< TARE_LOSS_GHM_C, TARE_LOSS_GHM_R */
    uint64_t reserved_words[16];
  };
} tare_loss_spec;

/** Fills `loss` with the defaults of `kind`. An unknown kind is kept, and is an error when it is used. */
TARE_API void tare_loss_spec_init_sized(tare_loss_spec *loss, tare_loss_kind kind, uint64_t struct_size);
#define tare_loss_spec_init(loss, kind) tare_loss_spec_init_sized((loss), (kind), sizeof *(loss))

/* ------------------------------------------------------------------------------------------------------------------
 * 5. The batch
 * --------------------------------------------------------------------------------------------------------------- */

/** Distance, in elements, between neighbours along each axis. Input strides may be 0 (broadcast) or negative. Elements
 *  of an output must not overlap. The stride of an axis of length 0 or 1 is not used. An array may span up to 2^58
 *  elements in each direction. `cls` is ignored in an array without a class axis. */
typedef struct tare_strides {
  int64_t image, y, x, anchor, cls;
} tare_strides;

/**
 * One level of a detector's head: images x height x width x anchors rows of C logits, anywhere in memory. Every array
 * has its own strides. So a head's NCHW output is used directly, with labels in level-major or image-major order. Row
 * order is image, y, x, anchor (anchor fastest), level after level. Error texts number the rows in this order. Pointers
 * only need the natural alignment of their element type.
 *
 * The gradient either has the logits' pointer and strides (in place), or overlaps no other array of the batch. Row and
 * element losses are f32 (f64 for f64 logits). They include every weight but no divisor, and are 0 in rows that do not
 * count.
 */
typedef struct tare_level {
  int64_t height, width, anchors; /**< each >= 0; an empty level is valid */
  const void *logits;             /**< tare_batch::dtype; GHM-R: the predictions */
  tare_strides logits_strides;
  void *gradient; /**< by the logits, same type; or NULL */
  tare_strides gradient_strides;
  const void *labels; /**< tare_batch::label_dtype; NULL only with targets, or with scores as targets between bins */
  tare_strides labels_strides;
  const void *targets; /**< dense, tare_batch::target_dtype, in [0,1] (GHM-R: any); NULL: use labels */
  tare_strides targets_strides;
  const float *row_weights; /**< NULL: 1 */
  tare_strides row_weights_strides;
  const float *element_weights; /**< NULL: 1. Not in softmax losses */
  tare_strides element_weights_strides;
  void *row_loss; /**< sum over the classes of each row; or NULL */
  tare_strides row_loss_strides;
  void *element_loss; /**< not in softmax losses; or NULL */
  tare_strides element_loss_strides;
  /** one per row, tare_batch::score_dtype, in [0,1]: the target of the label's element; NULL: 1. Losses of bins: see
   *  tare_distribution_focal_parameters and tare_two_hot_parameters */
  const void *scores;
  tare_strides scores_strides;
  /** one scalar of tare_output::loss_dtype: loss_weight times the sum over this level, over the divisor; device memory;
   *  or NULL */
  void *loss;
  double loss_weight; /**< a factor of the level's loss and gradient, finite in f32, not 0; default 1 */
  /** this level's divisor instead of the normalizer's, without addend and minimum; it and its reciprocal are finite. 0
   *  (default): the normalizer's. Not in GHM losses */
  double divisor;
  const float *divisor_pointer; /**< instead of `divisor`, which is then 0; device memory; or NULL */
} tare_level;

/** A level of contiguous rows [images, rows, classes]. Fills the strides of contiguous arrays, NULL pointers and a loss
 *  weight of 1. */
TARE_API void tare_level_init_rows_sized(tare_level *level, int64_t rows, int64_t classes, uint64_t struct_size);
#define tare_level_init_rows(level, rows, classes) \
  tare_level_init_rows_sized((level), (rows), (classes), sizeof *(level))

/** An NCHW level. Logits, gradient, targets, element weights and element losses are [images, anchors*classes, height,
 *  width], with channel = anchor*classes + class. Labels, row weights, scores and row losses are [images, height,
 *  width, anchors]. */
TARE_API void tare_level_init_nchw_sized(tare_level *level, int64_t anchors, int64_t classes, int64_t height,
                                         int64_t width, uint64_t struct_size);
#define tare_level_init_nchw(level, anchors, classes, height, width) \
  tare_level_init_nchw_sized((level), (anchors), (classes), (height), (width), sizeof *(level))

/** The same with channels last: [images, height, width, anchors*classes]. */
TARE_API void tare_level_init_nhwc_sized(tare_level *level, int64_t anchors, int64_t classes, int64_t height,
                                         int64_t width, uint64_t struct_size);
#define tare_level_init_nhwc(level, anchors, classes, height, width) \
  tare_level_init_nhwc_sized((level), (anchors), (classes), (height), (width), sizeof *(level))

#define TARE_MAX_LEVELS 16

/**
 * Which rows a loss covers.
 *
 * Hard negative mining (SSD, arXiv 1512.02325, section 2.2) selects every row with a class. In each image it also
 * selects k background rows, those with the largest loss. k = min(background rows, max(selection_minimum,
 * ceil(selection_ratio * P))). P is the number of rows with a class in the image. An image's rows are those of all its
 * levels.
 *
 * Online hard example mining (OHEM, Shrivastava et al., arXiv 1604.03540, section 4) selects the k rows of the batch
 * with the largest loss. It chooses among all rows that count, also background rows. k is selection_count, or
 * ceil(selection_fraction * rows that count), formed in double. Exactly one of the two is above 0. If fewer than k rows
 * count, all of them are selected. On several machines each rank selects among its own rows.
 *
 * Rows are ranked by their row loss in f32. This loss has no row, class, element and negative weights, no divisor and
 * no scale; in OHEM and with TARE_WEIGHTING_TERMS it has no positive weights either. NaN is the largest. Among equal
 * losses the first in row order is selected. The result is the same on every run. A row that is not selected adds
 * nothing and has a gradient of 0. TARE_NORMALIZER_POSITIVES and tare_normalizer_sums::positives count all rows with a
 * class. Every other divisor is formed from the selected rows. tare_output::counts counts the labels before the
 * selection.
 *
 * Sigmoid and softmax losses with labels allow a selection. GHM losses, dense targets, scores and the fused head do
 * not. Hard negative mining with a softmax loss needs a background that is a class. The call needs a workspace: 8 bytes
 * per row (f64 logits: 12), and some kilobytes for OHEM. See tare_workspace_size.
 */
typedef enum tare_selection {
  TARE_SELECTION_ALL = 0,            /**< every row that counts */
  TARE_SELECTION_HARD_NEGATIVES = 1, /**< rows with a class, and the background rows with the largest loss */
  TARE_SELECTION_HARD_ROWS = 2       /**< the rows with the largest loss (OHEM) */
} tare_selection;

/**
 * Labels. The class of a row is label - first_label. A row whose label equals ignore_label is ignored. A row whose
 * label equals background_label is background. The class of every other row must be in [0, classes). A background label
 * may also be in the range of the classes. A softmax loss then treats the row as that class, with that class's weight
 * and not background_weight. A sigmoid loss treats it as a row whose targets are all 0. No loss counts it as positive.
 *
 *   mmcv       background_label = classes
 *   apex       background_label = -1, ignore_label = -2 (the defaults)
 *   Detectron  background_label = 0, first_label = 1
 *
 * Labels are range-checked in 64 bits before they are narrowed. GHM-R's columns are not classes. There any label >=
 * first_label, other than background_label and ignore_label, makes its row positive.
 *
 * Targets. Dense targets replace labels. The sigmoid losses and GHM-C take any t in [0,1]. Softmax CE, with or without
 * logit adjustment, takes any row of finite numbers >= 0. Other softmax losses take no targets. If the logits are
 * narrower than f64, targets in f64 are rounded to f32 first. A t of exactly 0 or 1 gives the loss and the gradient of
 * a label, bit for bit. A softmax row with all its mass on one class gives those of the label times the mass, bit for
 * bit. A softmax row whose targets are all 0 counts and adds nothing. Labels beside targets are range-checked like
 * others, but only say which rows are ignored. In GHM-R they say which rows count: all but background and ignored rows.
 * Without labels all rows count. With targets, class weights and TARE_NORMALIZER_POSITIVES are TARE_STATUS_UNSUPPORTED,
 * because a row has no class.
 *
 * Scores. A label may have a score in [0,1], such as the IoU of its box. The score is the target of the label's
 * element. Every other element is a negative, as without scores. NULL means that each score is 1. A row with a class is
 * a positive in counts and divisors, whatever its score is (also 0). The label's element has alpha and the positive
 * weight of target 1, whatever the score is. tare_loss_description says which losses take scores. f64 scores need f64
 * logits. Some levels may have scores and others not. Scores together with targets are TARE_STATUS_UNSUPPORTED. A score
 * is checked like a target, in rows with a class and a weight other than 0. In distribution focal loss and two-hot
 * cross-entropy, scores are not qualities but targets between bins. They are invalid if they are not finite; those of
 * two-hot cross-entropy also outside [0,1e30].
 *
 * Targets out of range. A t in [-1e-3, 1.001] (f16 and bf16 targets: [-0.01, 1.01]) is clamped to [0,1]. The ends are
 * rounded to the targets' type. If the logits are narrower than f64, targets in f64 are rounded to f32 before the
 * comparison. Any other value, and NaN, makes its row invalid. In softmax CE a negative or non-finite target makes its
 * row invalid. An invalid row adds nothing and has a gradient of 0. tare_counts counts it as invalid. It does not count
 * in divisors or in GHM's N. The call writes every output, returns TARE_STATUS_INVALID_TARGET and names row and class.
 * On a GPU tare_context_synchronize returns it and names the row. Targets of GHM-R, of ignored rows, and of rows and
 * elements of weight 0 are not checked.
 *
 * Weights. An element's weight is row weight x class weight x element weight x positive or negative weight x alpha_t.
 * Positive weights, negative weights, alpha_per_class and gamma_per_class are those of the element's column.
 * class_weights are those of the row's label. Row and element weights may be negative; a NaN weight gives NaN. In a GHM
 * loss a row weight that is NaN or not above 0 masks its row.
 *
 * An ignored row, a row of weight 0 and an element of weight 0 (alpha_t included) add nothing. Their gradients are 0,
 * even if their logits are NaN.
 *
 * Class mask. Data sets with partial or federated labels (LVIS, Open Images) say for each image which classes were
 * looked for. An element is masked if the mask of its row's image has a 0 for its class. A masked element adds nothing
 * and has a gradient of 0, whatever its logit, weight, target and score are. They are not checked. Nothing counts it:
 * neither TARE_NORMALIZER_ELEMENTS, TARGETS and ONES, nor GHM's N, class sums, the histogram of gradient norms, or the
 * row loss that ranks a row in a selection. A row whose own class is masked is still a row and a positive. Sigmoid
 * losses and GHM-C take a mask. A fused head takes one mask for all its rows, or images of one row each.
 */
typedef struct tare_batch {
  uint64_t struct_size;
  uint64_t level_stride;      /**< sizeof(tare_level), set by tare_batch_init */
  const tare_level *levels;   /**< host memory */
  int32_t level_count;        /**< 1..TARE_MAX_LEVELS */
  int32_t dtype;              /**< a tare_dtype, of logits and gradient; default TARE_DTYPE_F32 */
  int32_t label_dtype;        /**< a tare_label_dtype; default TARE_LABEL_DTYPE_I32 */
  int32_t target_dtype;       /**< a tare_dtype; default TARE_DTYPE_F32 */
  int64_t images;             /**< >= 0; default 1 */
  int64_t classes;            /**< >= 1, < 2^31, on a GPU <= 2^30; GHM-R: columns, 4 for boxes */
  int64_t first_label;        /**< label of class 0; default 0 */
  int64_t background_label;   /**< default -1 */
  int64_t ignore_label;       /**< differs from background_label; default -2 */
  const float *class_weights; /**< [classes], factors of the whole row of a label; device memory; or NULL */
  double background_weight;   /**< factor of background rows, with or without class_weights; in [0,1e30]; default 1 */
  /** [classes], factor w of elements with t = 1. Elements with t = 0 have v = 1, or v from negative_weights. Others
   *  have t*w + (1-t)*v, or what tare_ce_parameters::weighting says. Sigmoid losses only. Device memory; or NULL */
  const float *positive_weights;
  int32_t score_dtype;       /**< a tare_dtype, of tare_level::scores; default TARE_DTYPE_F32 */
  int32_t selection;         /**< a tare_selection; default TARE_SELECTION_ALL */
  double selection_ratio;    /**< negatives per positive, in [0,1e9]; default 3 */
  int64_t selection_minimum; /**< least number of negatives of an image, >= 0; default 0 */
  int64_t selection_count;   /**< TARE_SELECTION_HARD_ROWS: the number of rows, >= 1; or 0 (default) */
  double selection_fraction; /**< instead: the share of the rows that count, in (0,1]; or 0 (default) */
  /** [classes], factor v of elements with t = 0, in every row that counts. Only sigmoid CE and sigmoid focal loss. With
   *  label smoothing only beside TARE_WEIGHTING_TERMS. Device memory; or NULL */
  const float *negative_weights;
  /** [classes], factor of elements of background rows, whose t is 0, instead of v. Then v is that of rows with a class
   *  alone. Only sigmoid CE and sigmoid focal loss, without dense targets and label smoothing. Device memory; or NULL:
   *  v of negative_weights, or 1 */
  const float *background_negative_weights;
  /** [images, classes]: 0 masks the class in this image; with any other number it counts. Device memory; or NULL
   *  (default): every class counts */
  const uint8_t *class_mask;
  int64_t class_mask_image_stride; /**< bytes from image to image; 0 (default): one mask for all images */
  int64_t class_mask_class_stride; /**< bytes from class to class; default 1 */
} tare_batch;

/** Fills the defaults. */
TARE_API void tare_batch_init_sized(tare_batch *batch, uint64_t struct_size, uint64_t level_size);
#define tare_batch_init(batch) tare_batch_init_sized((batch), sizeof *(batch), sizeof(tare_level))

/* ------------------------------------------------------------------------------------------------------------------
 * 6. The output
 * --------------------------------------------------------------------------------------------------------------- */

/** Row counts by category of label. `counted` is the divisor of TARE_NORMALIZER_ROWS. `invalid` includes rows with a
 *  target out of range. With targets, positives and background are 0 (except for GHM-R with labels). Without labels
 *  every row is counted. */
typedef struct tare_counts {
  int64_t rows, counted, positives, background, ignored, invalid;
} tare_counts;

/**
 * Sums over the elements of one class. g is the derivative of the loss by the logit. Loss and g include every weight
 * (and 1/GD), but neither divisor nor gradient_scale. t is the element's target: 1 at the label, or the label's score;
 * 0 at the other classes; or the dense target. In a softmax loss the loss of a row belongs to the class of its label.
 * Where t or 1-t is 0, its product with |g| is 0, even if g is infinite or NaN.
 *
 * Each element is added in f32 (f64 logits: in double), before it is rounded to f16 or bf16. The sums are formed in
 * double and in a fixed order. So they are bitwise the same from run to run, for any number of threads or blocks. Rows
 * that do not count, and elements of weight 0, add nothing. Ranks may add their sums. A fused head adds its chunks.
 */
typedef struct tare_class_sums {
  double loss;
  double positive_gradient; /**< sum of t*|g| */
  double negative_gradient; /**< sum of (1-t)*|g| */
  double count;             /**< rows that count, of any weight, without those that mask this class; softmax losses:
                                 those with a label of this class */
} tare_class_sums;

/**
 * The rows that a divisor is formed from. TARE_NORMALIZER_SCOPE_LEVEL needs a normalizer that is formed from the batch:
 * not TARE_NORMALIZER_SUM or TARE_NORMALIZER_VALUE. Addend and minimum then apply to the divisor of each level.
 *
 * With TARE_NORMALIZER_SCOPE_LEVEL the scalar loss is the sum of the levels' losses. The same holds if any level has a
 * loss, a divisor of its own or a loss weight other than 1. The loss and gradient of a level are then, bit for bit,
 * those of a separate call. That call has this divisor, a gradient scale times loss_weight, and the same other outputs.
 * On a GPU this also needs levels of one layout. Row and element losses and class sums have neither divisor nor loss
 * weight. A fused head has one level, and none of this.
 *
 * On a GPU, levels with the same divisor and the same loss weight share a launch.
 */
typedef enum tare_normalizer_scope {
  TARE_NORMALIZER_SCOPE_BATCH = 0, /**< all levels together */
  TARE_NORMALIZER_SCOPE_LEVEL = 1  /**< each level by itself */
} tare_normalizer_scope;

/**
 * The sum that each normalizer forms from a batch, in double, before tare_output::normalizer_addend and
 * normalizer_minimum. Ranks may add their sums, field by field. A target outside [0,1] is clamped, and NaN is 0. Where
 * targets are checked, such a value makes the row invalid, and the row does not count: see tare_batch. A softmax loss
 * has a target of 1 at the label of each row that counts.
 */
typedef struct tare_normalizer_sums {
  double elements, rows, positives, weights, targets, ones;
  double reserved[2]; /**< written as 0 */
} tare_normalizer_sums;

/**
 * Outputs of the whole batch. A NULL pointer means "not requested".
 *
 * Divisor and scale are host values or pointers to device scalars. A captured graph freezes the host values. The
 * gradient is multiplied by gradient_scale *before* it is rounded to the logits' type. The scale may be an AMP loss
 * scale, a loss weight, an upstream gradient, or -1 for the negative gradient. The loss is not scaled.
 *
 * A scale on the device may be infinite or NaN. A gradient that is 0 under a scale of 1 is then 0 too. Every other
 * gradient is infinite or NaN, so a search for such values finds it.
 */
typedef struct tare_output {
  uint64_t struct_size;
  void *loss;                          /**< one scalar of loss_dtype; device memory */
  int32_t loss_dtype;                  /**< TARE_DTYPE_F32 (default) or TARE_DTYPE_F64 */
  int32_t normalizer;                  /**< a tare_normalizer; default TARE_NORMALIZER_SUM */
  double normalizer_value;             /**< for TARE_NORMALIZER_VALUE; it and its reciprocal are finite; default 1 */
  const float *normalizer_pointer;     /**< for TARE_NORMALIZER_VALUE, instead of the value; device memory; or NULL */
  double gradient_scale;               /**< finite in f32, also after division by normalizer_value; default 1 */
  const float *gradient_scale_pointer; /**< a factor of gradient_scale; device memory; or NULL */
  tare_counts *counts;                 /**< device memory; or NULL */
  /** [classes]; device memory; or NULL. Written, not added to. Not with GHM-R, or with dense targets of a softmax loss.
   *  The logits are read once more. The call may need a workspace: see tare_workspace_size. */
  tare_class_sums *class_sums;
  /** float[1]: set to 1 if an element of the gradient is infinite or NaN as it is written, after scale and rounding
   *  (AMP's found_inf). Never cleared. Rows that do not count have a gradient of 0, so they never set it. It needs a
   *  gradient. Not with a fused head. Device memory; or NULL */
  float *nonfinite_gradient;
  float *nonfinite_loss; /**< the same for the scalar `loss`, which must be given */
  /** The divisor is max(minimum, sum + addend), and 1 where that is 0. Both are in [0,1e30], and 0 with
   *  TARE_NORMALIZER_SUM and TARE_NORMALIZER_VALUE. EfficientDet: POSITIVES with an addend of 1. Ultralytics: TARGETS
   *  with a minimum of 1. Default 0 */
  double normalizer_addend, normalizer_minimum;
  /** [1], or one for each level with TARE_NORMALIZER_SCOPE_LEVEL. Device memory, aligned to 8 bytes; or NULL. Not in
   *  GHM losses. A call that requests nothing else, or counts alone beside them, reads no logits. Ranks add these sums,
   *  and pass the divisor to a second call. */
  tare_normalizer_sums *normalizer_sums;
  int32_t normalizer_scope; /**< a tare_normalizer_scope; default TARE_NORMALIZER_SCOPE_BATCH */
  int32_t norm_bins;        /**< bins of norm_histogram: 1..1024; 0 (default) without one */
  /** [norm_bins]: how many elements have a gradient norm g = |sigmoid(x)-t| in each of norm_bins equal bins of [0,1],
   *  for any sigmoid loss. The bins are those of GHM-C. t is a label's score, or the dense target. An element is
   *  counted if its row counts, its row, class and element weights are not 0, and its class is not masked. Device
   *  memory, aligned to 8 bytes; or NULL. Written, not added to; ranks may add theirs. The logits are read once more.
   *  Not with a fused head, and not in GHM losses, whose state has the counts. */
  int64_t *norm_histogram;
} tare_output;

/** Fills the defaults. */
TARE_API void tare_output_init_sized(tare_output *output, uint64_t struct_size);
#define tare_output_init(output) tare_output_init_sized((output), sizeof *(output))

/* ------------------------------------------------------------------------------------------------------------------
 * 7. The evaluation
 * --------------------------------------------------------------------------------------------------------------- */

/**
 * Computes the loss, its gradient, or both: writes what `output` and the levels request. One pass over the logits is
 * enough. GHM losses, a selection, class_sums and norm_histogram each read them once more. On a GPU all work is put on
 * `stream`. The call does not wait, and it can be captured in a graph.
 *
 * Infinities. z = -inf gives loss +inf and gradient -alpha_t by z. z = +inf gives 0 and 0. A NaN logit gives NaN. In a
 * softmax loss a logit of -inf has probability 0, and the loss is +inf if the logit is the label's. One logit of +inf
 * that is not the label's gives loss +inf. Several logits of +inf, or none above -inf, give NaN. The gradient is finite
 * wherever its limit is.
 *
 * @return TARE_STATUS_OK; TARE_STATUS_INVALID_ARGUMENT; TARE_STATUS_UNSUPPORTED; TARE_STATUS_CUDA_ERROR;
 *         TARE_STATUS_WORKSPACE_TOO_SMALL; on the CPU also TARE_STATUS_INVALID_LABEL, whose text names the row, and
 *         TARE_STATUS_INVALID_TARGET, whose text names row and class. Outputs are written only with TARE_STATUS_OK,
 *         TARE_STATUS_INVALID_TARGET or TARE_STATUS_CUDA_ERROR.
 */
TARE_API tare_status tare_evaluate(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                   const tare_output *output, tare_stream stream);

/**
 * Multiplies gradients in place by a number that was not known when they were computed. A trainer may compute loss and
 * gradient in the forward pass, and keep the gradient. In the backward pass it multiplies the gradient by the upstream
 * gradient.
 *
 * The number is read on the device, so the host does not wait. If it is 1, no gradient is read or written. A product is
 * formed in f32 (f64 arrays: in double) and rounded once. An element of 0 stays 0, also times an infinity or NaN.
 *
 * @param dtype        of the gradients; TARE_DTYPE_F64 on the CPU only
 * @param array_count  1..TARE_MAX_LEVELS
 * @param gradients    [array_count], host memory: each points to counts[i] contiguous elements in device memory
 * @param counts       [array_count], host memory; >= 0
 * @param factor       float[1], device memory
 * @return TARE_STATUS_OK, TARE_STATUS_INVALID_ARGUMENT, TARE_STATUS_UNSUPPORTED or TARE_STATUS_CUDA_ERROR.
 */
TARE_API tare_status tare_scale_gradients(tare_context *context, tare_dtype dtype, int32_t array_count,
                                          void *const *gradients, const int64_t *counts, const float *factor,
                                          tare_stream stream);

/**
 * Bytes of workspace that tare_evaluate needs for these arguments. They are 0 except for the exact GHM density, hard
 * negative mining, OHEM, and class_sums of 512 rows or more. Class sums take at most 16 MiB.
 * @param output  may be NULL, which asks for no class_sums.
 * @return as tare_evaluate.
 */
TARE_API tare_status tare_workspace_size(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                         const tare_output *output, uint64_t *bytes);

/**
 * Lends the context a workspace for the calls that follow. The caller owns it and keeps it until all work that uses it
 * has run.
 * @param workspace  device memory, aligned to 16 bytes; NULL with `bytes` 0 takes it back.
 * @return TARE_STATUS_OK or TARE_STATUS_INVALID_ARGUMENT.
 */
TARE_API tare_status tare_context_set_workspace(tare_context *context, void *workspace, uint64_t bytes);

/* ------------------------------------------------------------------------------------------------------------------
 * 8. The fused head: classifier and loss without the logits
 *
 * A head's last layer is a product: logits = X W^T + b. These calls take X, W and b instead of the logits. They work on
 * one chunk of rows at a time. They form the chunk's logits in the workspace, evaluate the loss there, and turn the
 * gradient by the logits into gradients by X, W and b. The full array of logits never exists. Neither does its
 * gradient.
 *
 * Matrix products use an external BLAS, which is loaded when first needed. On the CPU it is a CBLAS with 32-bit
 * integers (default libopenblas.so.0; the build or the environment variable TARE_BLAS may name another). On a GPU it is
 * cuBLAS of CUDA 12 or newer: the file that the environment variable TARE_CUBLAS names, else a copy that the process
 * has loaded, else libcublas.so.13 or .12. Without a BLAS these calls return TARE_STATUS_NO_BLAS. All other calls work.
 *
 * On a GPU the first of these calls starts cuBLAS, which allocates. During a capture that call returns
 * TARE_STATUS_CAPTURING. So make one call on that GPU before the capture.
 *
 * A CBLAS has threads of its own, which Tare neither counts nor changes. Tare makes no guarantee about a BLAS in a
 * forked child. (OpenBLAS works there if it was built with pthreads, and hangs if it was built with OpenMP.) Between
 * two products the loss runs on the context's threads. They sleep while the BLAS works.
 *
 * A scale on the device that is not finite multiplies the finished products. So a gradient that is 0 without it stays
 * 0. With `accumulate` the gradient by W then needs space of its own in the workspace. As in any product, a feature
 * that is infinite or NaN makes weights_gradient NaN, even if its row's gradient is 0.
 * --------------------------------------------------------------------------------------------------------------- */

/**
 * The classifier. N is the batch's number of rows, C its classes (GHM-R: columns), D the dimensions. Rows of X are in
 * row order (see tare_level). X, its gradient, W and b have one type: f32, f16 or bf16. Logits and sums are f32. A NULL
 * gradient is not computed. If all three are NULL, one product is enough. No gradient may overlap another array of the
 * call, but features_gradient may be `features` itself (same stride).
 *
 * f32 products are f32 throughout, never TF32. On a GPU, products of f16 and bf16 are summed in f32. For these products
 * the gradient by the logits is rounded to f16 or bf16. For f16 it is first scaled into the range of f16, chunk by
 * chunk. So an element may be off by 2^-39 of the chunk's largest element.
 */
typedef struct tare_linear {
  uint64_t struct_size;
  int64_t dimensions;   /**< D: 1..2147483647 */
  int32_t dtype;        /**< TARE_DTYPE_F32 (default), TARE_DTYPE_F16 or TARE_DTYPE_BF16: of X, its gradient, W and b */
  int32_t accumulate;   /**< 1: add to weights_gradient and bias_gradient; 0 (default): overwrite them */
  const void *features; /**< X [N, D], rows features_stride apart; device memory */
  int64_t features_stride;          /**< in elements, D..2147483647; default D */
  const void *weights;              /**< W [C, D], contiguous; device memory */
  const void *bias;                 /**< b [C]; NULL: none */
  void *features_gradient;          /**< [N, D], by X, times gradient_scale, rounded once; device memory; or NULL */
  int64_t features_gradient_stride; /**< in elements, D..2147483647; default D */
  float *weights_gradient;          /**< [C, D], by W, always f32; device memory; or NULL */
  float *bias_gradient;             /**< [C], by b, always f32; device memory; or NULL */
} tare_linear;

/** Fills the defaults for these dimensions. */
TARE_API void tare_linear_init_sized(tare_linear *linear, int64_t dimensions, uint64_t struct_size);
#define tare_linear_init(linear, dimensions) tare_linear_init_sized((linear), (dimensions), sizeof *(linear))

/**
 * Loss and gradients of a classifier's outputs, like tare_evaluate.
 *
 * The batch has one level of flat rows, as tare_level_init_rows makes it. Labels, weights and losses have one stride
 * each between rows. logits and gradient are NULL. dtype is TARE_DTYPE_F32, the type of the logits in the workspace.
 * Normalizer, scale, loss, counts and class sums are those of `output`. All gradients include scale and divisor.
 *
 * GHM with unit regions reads the logits twice, and counts gradient norms in the first pass. With
 * loss->ghm.use_stored_density 1 there is no first pass. The first chunk's logits are kept from the first pass to the
 * second. A workspace larger than `ample` (see tare_linear_workspace_size) keeps the logits of more chunks. One of
 * `ample` + 4*N*C bytes keeps all. The logits of the other chunks are formed twice. The result is the same either way.
 * The exact density sorts all logits, and is TARE_STATUS_UNSUPPORTED.
 *
 * The workspace (tare_context_set_workspace) limits the rows of a chunk. Any size from `least` on works. The result is
 * bitwise repeatable for the same workspace size, the same BLAS and the same number of BLAS threads. Other sizes below
 * `ample` round differently. A batch without rows needs no workspace. Its loss, class sums and gradients are 0.
 *
 * @return as tare_evaluate; also TARE_STATUS_NO_BLAS and TARE_STATUS_CAPTURING. Outputs are written only with
 *         TARE_STATUS_OK or TARE_STATUS_INVALID_TARGET; the workspace may be written in any case.
 */
TARE_API tare_status tare_linear_evaluate(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                          const tare_linear *linear, const tare_output *output, tare_stream stream);

/**
 * Counts the gradient norms of X W^T + b into loss->ghm.state, like tare_ghm_histogram (section 9). The workspace is as
 * for tare_linear_evaluate.
 * @return as tare_linear_evaluate.
 */
TARE_API tare_status tare_linear_ghm_histogram(tare_context *context, const tare_loss_spec *loss,
                                               const tare_batch *batch, const tare_linear *linear, tare_stream stream);

/**
 * Bytes of workspace for these arguments.
 * @param output  may be NULL, which asks for no class_sums.
 * @param least   receives the smallest size that works; or NULL.
 * @param ample   receives the size at which chunks are largest; or NULL. Only GHM uses more: see
 *                tare_linear_evaluate.
 * @return as tare_linear_evaluate.
 */
TARE_API tare_status tare_linear_workspace_size(tare_context *context, const tare_loss_spec *loss,
                                                const tare_batch *batch, const tare_linear *linear,
                                                const tare_output *output, uint64_t *least, uint64_t *ample);

/* ------------------------------------------------------------------------------------------------------------------
 * 9. Counts and gradient density: what several machines must agree on
 *
 * Tare has no network code. A few numbers must be equal on every rank. The caller adds them over the ranks (NCCL, MPI,
 * torch.distributed) and passes the sums back:
 *
 *   positives:  tare_label_counts -> all-reduce -> max(1, .) -> TARE_NORMALIZER_VALUE
 *   targets:    tare_evaluate for tare_output::normalizer_sums alone -> all-reduce -> max(1, .)
 *               -> TARE_NORMALIZER_VALUE
 *   weights:    tare_class_balance_count (section 10) -> all-reduce words [1, 1+classes) of the state, int64
 *               -> tare_class_balance_step
 *   gradients:  tare_gradient_balance_collect (section 10) -> all-reduce words [1, 1+2*classes) of the state, double
 *               -> tare_gradient_balance_step
 *   GHM:        tare_ghm_histogram -> all-reduce words [1, 2+bins) of the state, int64 -> tare_ghm_density_update
 *               -> tare_evaluate with ghm.use_stored_density = 1
 *
 * Training that *averages* gradients over W ranks needs the global divisor divided by W. Training that *sums* gradients
 * needs the global divisor. The exact density cannot be split over ranks.
 * --------------------------------------------------------------------------------------------------------------- */

/**
 * Counts the labels of a batch. It reads labels and row order only; logits may be NULL.
 * @param counts     device memory; or NULL. `counted` is as for a sigmoid loss.
 * @param per_class  int64 [classes]: rows of each class, without background; device memory; or NULL.
 * @return TARE_STATUS_OK, TARE_STATUS_INVALID_ARGUMENT, TARE_STATUS_CUDA_ERROR; on the CPU TARE_STATUS_INVALID_LABEL.
 */
TARE_API tare_status tare_label_counts(tare_context *context, const tare_batch *batch, tare_counts *counts,
                                       int64_t *per_class, tare_stream stream);

/** @return the bytes of a GHM state; 0 if `bins` is not in 1..1024. */
TARE_API uint64_t tare_ghm_state_bytes(int32_t bins);

/**
 * Counts the gradient norms of the batch into words [1, 2+bins) of loss->ghm.state. Unit regions only.
 * @return as tare_evaluate.
 */
TARE_API tare_status tare_ghm_histogram(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                        tare_stream stream);

/**
 * Computes momentum sums and 1/GD from N and the counts in loss->ghm.state, and increments the number of steps. With N
 * = 0 it changes nothing.
 * @return TARE_STATUS_OK, TARE_STATUS_INVALID_ARGUMENT, TARE_STATUS_UNSUPPORTED or TARE_STATUS_CUDA_ERROR.
 */
TARE_API tare_status tare_ghm_density_update(tare_context *context, const tare_loss_spec *loss, tare_stream stream);

/* ------------------------------------------------------------------------------------------------------------------
 * 10. Class weights and offsets: class-balanced weights (Cui et al., arXiv 1901.05555), logit adjustment
 * --------------------------------------------------------------------------------------------------------------- */

/**
 * The effective number of samples: E_n = (1-beta^n)/(1-beta), formed as -expm1(n*log(beta))/(1-beta) (eq. 2).
 * @param n     a real number >= 0: half a sample has an effective number too.
 * @param beta  in [0,1).
 * @return TARE_STATUS_OK or TARE_STATUS_INVALID_ARGUMENT (text: tare_error_text(NULL)).
 */
TARE_API tare_status tare_effective_number(double n, double beta, double *effective_number);

/**
 * beta = (N-1)/N. N is the volume of all possible data of a class; one sample has volume 1 (the same paper, section
 * 3.2).
 * @param volume  in [1, 2^52].
 * @return TARE_STATUS_OK or TARE_STATUS_INVALID_ARGUMENT (text: tare_error_text(NULL)).
 */
TARE_API tare_status tare_beta_from_volume(double volume, double *beta);

/**
 * Class-balanced weights w_c, proportional to 1/E_{n_c}. The weights of the classes with n_c > 0 add up to the number
 * of these classes. A class with n_c = 0 has weight 0.
 * @param counts          int64 [classes], each >= 0, at least one > 0; host memory.
 * @param beta            in [0,1), for every class; ignored if beta_per_class is given.
 * @param beta_per_class  double [classes], each in [0,1); host memory; or NULL.
 * @param weights         float [classes]; host memory. Copy them to the device for tare_batch::class_weights.
 * @return TARE_STATUS_OK or TARE_STATUS_INVALID_ARGUMENT (text: tare_error_text(NULL)).
 */
TARE_API tare_status tare_class_balanced_weights(int64_t classes, const int64_t *counts, double beta,
                                                 const double *beta_per_class, float *weights);

/**
 * The same for counts that are real numbers: sums of fractions, soft labels, weighted samples. For whole numbers up to
 * 2^53 the weights are those of tare_class_balanced_weights, bit for bit. Every weight is finite, and at most the
 * number of classes with a count > 0. A weight that is too small for a float is 0.
 * @param counts  double [classes], each finite and >= 0, at least one > 0; host memory.
 * @return TARE_STATUS_OK or TARE_STATUS_INVALID_ARGUMENT (text: tare_error_text(NULL)).
 */
TARE_API tare_status tare_class_balanced_weights_real(int64_t classes, const double *counts, double beta,
                                                      const double *beta_per_class, float *weights);

/**
 * Class-balanced weights that follow the data: running counts of positives, in device memory that the caller keeps.
 *
 * A training step calls tare_class_balance_count, adds the counts over the ranks if there are several, and calls
 * tare_class_balance_step. The step adds the counts to the running counts, n_c = decay*n_c + counts_c, and then forms
 * the weights. So every class of the batch has a weight. Nothing waits for the device, and all of it can be captured.
 *
 * The weights are those of tare_class_balanced_weights_real for max(n_c, least_count). A class where this is 0 has
 * weight 0. If it is 0 for every class, each weight is 1. A weight may differ in its last bits from device to device.
 *
 * Seesaw loss needs the logarithms of the counts instead: log max(n_c, 1), formed in double and rounded once.
 *
 * State. tare_class_balance_state_bytes(classes) bytes, aligned to 8. A fresh state is all zero bytes. It may be
 * copied, saved and restored as bytes. In 8-byte words:
 *
 *   [0]                        int64   steps taken
 *   [1 .. 1+classes)           int64   counts of the step; ranks add them
 *   [1+classes .. 1+2*classes) double  running counts n. One that is negative, not finite or below 1e-30 counts as 0
 */
typedef struct tare_class_balance {
  uint64_t struct_size;
  int64_t classes;    /**< C: 1..2^31-2 */
  double beta;        /**< in [0,1); default 0.999 */
  double decay;       /**< factor of the running counts in each step, in (0,1]; default 1: plain sums */
  double least_count; /**< a smaller count is raised to it: in [1e-30,2^53], or 0 (default) for none */
  void *state;        /**< device memory */
  float *weights;     /**< [classes], written; device memory; NULL: none */
  float *log_counts;  /**< [classes], written: log max(n, 1) for Seesaw loss; device memory; NULL (default): none */
} tare_class_balance;

/** Fills the defaults. */
TARE_API void tare_class_balance_init_sized(tare_class_balance *balance, int64_t classes, uint64_t struct_size);
#define tare_class_balance_init(balance, classes) tare_class_balance_init_sized((balance), (classes), sizeof *(balance))

/** @return the bytes of a state; 0 if `classes` is out of range. */
TARE_API uint64_t tare_class_balance_state_bytes(int64_t classes);

/**
 * Counts the rows of each class of a batch, and writes the counts of the step into the state. It reads only labels.
 * @return as tare_label_counts.
 */
TARE_API tare_status tare_class_balance_count(tare_context *context, const tare_class_balance *balance,
                                              const tare_batch *batch, tare_stream stream);

/**
 * Adds the counts of the step to the running counts, increments the number of steps, and forms the weights.
 * @return TARE_STATUS_OK, TARE_STATUS_INVALID_ARGUMENT or TARE_STATUS_CUDA_ERROR.
 */
TARE_API tare_status tare_class_balance_step(tare_context *context, const tare_class_balance *balance,
                                             tare_stream stream);

/**
 * Forms the weights from the running counts as they are, for example for a validation. The state is only read. At least
 * one of `weights` and `log_counts` must be given.
 * @return as tare_class_balance_step.
 */
TARE_API tare_status tare_class_balance_weigh(tare_context *context, const tare_class_balance *balance,
                                              tare_stream stream);

typedef enum tare_gradient_rule {
  /** Equalization loss v2 (Tan et al., arXiv 2012.08548, eq. 5 to 7): sigmoid CE. With f = 1/(1 +
   *  exp(-steepness*(g-midpoint))), elements with t = 1 have the weight 1 + gain*(1-f), and elements with t = 0 the
   *  weight f */
  TARE_GRADIENT_RULE_EQLV2 = 0,
  /** Equalized focal loss (Li et al., arXiv 2201.02593, eq. 5 to 7): sigmoid focal loss with gamma_c = gamma +
   *  scale*(1-g). Elements with t = 1 and t = 0 have the weight gamma_c/gamma */
  TARE_GRADIENT_RULE_EFL = 1
} tare_gradient_rule;

/**
 * Weights that follow the gradients of each class. For each class there are running sums of positive gradients (P) and
 * of negative gradients (N), in device memory that the caller keeps. g = P/(N + 1e-10), in EFL clamped to [0,1]. In
 * EQLv2 a fresh state has g = 100, where both weights are 1. In EFL a fresh state has g = 1.
 *
 * A training step is
 *
 *   tare_gradient_balance_weigh    weights (and exponents) from the state, which has not seen this batch
 *   tare_evaluate                  with these as positive_weights, negative_weights (and focal.gamma_per_class), and
 *                                  with class_sums
 *   tare_gradient_balance_collect  positive_gradient and negative_gradient of class_sums become the sums of the step
 *   (all-reduce)                   several ranks add the sums of the step: words [1, 1+2*classes) of the state, double
 *   tare_gradient_balance_step     adds them to the running sums
 *
 * So EQLv2 sums w*|p-t|, and EFL sums |dL/dx|. Both have every weight, but neither divisor nor gradient_scale. A sum
 * that is not finite adds nothing. Nothing waits for the device, and all of it can be captured.
 *
 * State. tare_gradient_balance_state_bytes(classes) bytes, aligned to 8. A fresh state is all zero bytes. It may be
 * copied, saved and restored as bytes. In 8-byte words:
 *
 *   [0]                          int64   steps taken
 *   [1 .. 1+2*classes)           double  sums of the step: P and N of class 0, of class 1, ...
 *   [1+2*classes .. 1+4*classes) double  running sums, in the same order. One that is negative or not finite counts
 *                                        as 0
 */
typedef struct tare_gradient_balance {
  uint64_t struct_size;
  int64_t classes;         /**< C: 1..2^31-2 */
  int64_t exempt;          /**< a class with weights 1 and exponent gamma, such as a column of objectness; default -1:
                                none */
  int32_t rule;            /**< a tare_gradient_rule */
  int32_t reserved;        /**< 0 */
  double steepness;        /**< EQLv2: in [0,1e6]; default 12 */
  double midpoint;         /**< EQLv2: in [-1e6,1e6]; default 0.8 */
  double gain;             /**< EQLv2: in [0,1e6]; default 4 */
  double gamma;            /**< EFL: in [1e-3,1000]; default 2 */
  double scale;            /**< EFL: in [0,1000]; default 8 */
  void *state;             /**< device memory */
  float *positive_weights; /**< [classes], written by tare_gradient_balance_weigh; device memory; or NULL */
  float *negative_weights; /**< the same */
  float *gammas;           /**< the same; NULL in EQLv2 */
} tare_gradient_balance;

/** Fills the defaults. */
TARE_API void tare_gradient_balance_init_sized(tare_gradient_balance *balance, tare_gradient_rule rule, int64_t classes,
                                               uint64_t struct_size);
#define tare_gradient_balance_init(balance, rule, classes) \
  tare_gradient_balance_init_sized((balance), (rule), (classes), sizeof *(balance))

/** @return the bytes of a state; 0 if `classes` is out of range. */
TARE_API uint64_t tare_gradient_balance_state_bytes(int64_t classes);

/**
 * Forms weights and exponents from the running sums. The state is only read.
 * @return TARE_STATUS_OK, TARE_STATUS_INVALID_ARGUMENT or TARE_STATUS_CUDA_ERROR.
 */
TARE_API tare_status tare_gradient_balance_weigh(tare_context *context, const tare_gradient_balance *balance,
                                                 tare_stream stream);

/**
 * Copies the gradients of class sums into the state, as the sums of the step.
 * @param sums  [classes], as tare_output::class_sums has them; device memory.
 * @return as tare_gradient_balance_weigh.
 */
TARE_API tare_status tare_gradient_balance_collect(tare_context *context, const tare_gradient_balance *balance,
                                                   const tare_class_sums *sums, tare_stream stream);

/**
 * Adds the sums of the step to the running sums, and increments the number of steps.
 * @return as tare_gradient_balance_weigh.
 */
TARE_API tare_status tare_gradient_balance_step(tare_context *context, const tare_gradient_balance *balance,
                                                tare_stream stream);

/** What a class with a count of 0 is, in offsets and margins. */
typedef enum tare_empty_classes {
  TARE_EMPTY_CLASSES_COUNT_ONE = 0, /**< one with a count of 1 */
  TARE_EMPTY_CLASSES_EXCLUDED = 1   /**< excluded: its offset is -inf, its margin +inf. Then its label is invalid */
} tare_empty_classes;

/**
 * Offsets of logit adjustment: offset_c = tau*log(n_c/sum n), formed in double and rounded once. A count of 0 counts as
 * 1. The counts may also be frequencies that sum to 1, if none is 0.
 * @param counts  double [classes], each finite and >= 0; host memory. A 0 together with a count strictly between 0 and
 *                1 is refused, because then 1 is not a single sample.
 * @param tau     in [-1e30,1e30]. 1 is balanced softmax. 0 changes no logit. -tau adjusts logits after training.
 * @param offset  float [classes]; host memory. Copy it to the device for tare_logit_adjusted_parameters.
 * @return TARE_STATUS_OK or TARE_STATUS_INVALID_ARGUMENT (text: tare_error_text(NULL)).
 */
TARE_API tare_status tare_logit_adjustment(int64_t classes, const double *counts, double tau, float *offset);

/**
 * The same, with a choice of what empty classes are. If they are excluded, frequencies of 0 are taken too, and one
 * count must be above 0.
 * @param empty  a tare_empty_classes.
 * @return TARE_STATUS_OK or TARE_STATUS_INVALID_ARGUMENT (text: tare_error_text(NULL)).
 */
TARE_API tare_status tare_logit_offsets(int64_t classes, const double *counts, double tau, int32_t empty,
                                        float *offset);

/**
 * Margins of LDAM: margin_c = max_margin*(n_c/n_min)^(-1/4), formed in double and rounded once. n_min is the least
 * count of a class that is not excluded, so that the rarest class has max_margin.
 * @param counts      as in tare_logit_offsets.
 * @param max_margin  in [0,1e6]. The authors' is 0.5. With 0 the loss is softmax CE of s*x.
 * @param empty       a tare_empty_classes.
 * @param margins     float [classes]; host memory. What tare_ldam_parameters takes (copied to the device).
 * @return TARE_STATUS_OK or TARE_STATUS_INVALID_ARGUMENT (text: tare_error_text(NULL)).
 */
TARE_API tare_status tare_ldam_margins(int64_t classes, const double *counts, double max_margin, int32_t empty,
                                       float *margins);

/* ------------------------------------------------------------------------------------------------------------------
 * 11. Introspection
 * --------------------------------------------------------------------------------------------------------------- */

/** @return the number of losses. */
TARE_API int32_t tare_loss_count(void);
/** @return the kind of the loss with this index, from 0; -1 if there is none. */
TARE_API int32_t tare_loss_kind_at(int32_t index);
/** @return the name of a kind, such as "sigmoid-focal"; NULL if it is unknown. */
TARE_API const char *tare_loss_name(int32_t kind);
/** @return the kind of the loss with this name; -1 if it is unknown. */
TARE_API int32_t tare_loss_kind_from_name(const char *name);

/** The family of a loss: how it treats a row. */
typedef enum tare_loss_family {
  TARE_LOSS_FAMILY_SIGMOID = 0,   /**< element by element; a label chooses the column whose target is 1 */
  TARE_LOSS_FAMILY_SOFTMAX = 1,   /**< row by row */
  TARE_LOSS_FAMILY_REGRESSION = 2 /**< element by element, prediction - target; labels say which rows count */
} tare_loss_family;

/** What a loss takes from a batch. A binding that reads this needs no list of losses of its own. */
typedef struct tare_loss_description {
  uint64_t struct_size;
  const char *name;               /**< such as "sigmoid-focal"; never freed */
  int32_t kind;                   /**< a tare_loss_kind */
  int32_t family;                 /**< a tare_loss_family */
  int32_t parameters;             /**< number of parameters that tare_loss_parameter describes */
  int32_t has_state;              /**< 1: one parameter is a state that the caller keeps */
  int32_t takes_targets;          /**< 1: dense targets as well as labels (GHM-R: always) */
  int32_t takes_class_weights;    /**< 1: class_weights and background_weight */
  int32_t takes_element_weights;  /**< 1: tare_level::element_weights */
  int32_t takes_positive_weights; /**< 1: tare_batch::positive_weights */
  int32_t takes_normalizer;       /**< 1: any tare_normalizer; 0: only TARE_NORMALIZER_SUM */
  int32_t gives_element_loss;     /**< 1: tare_level::element_loss */
  int32_t takes_scores;           /**< 1: tare_level::scores in [0,1] */
  int32_t takes_negative_weights; /**< 1: tare_batch::negative_weights */
  /** how many scores a row has if they are targets between bins: 1 (distribution focal loss) or 2 (two-hot
   *  cross-entropy); other losses 0 */
  int32_t takes_bins;
  int32_t reserved;
} tare_loss_description;

/**
 * Describes a loss.
 * @param description  set `description->struct_size` before the call. Bytes that this version does not know become 0.
 * @return TARE_STATUS_OK or TARE_STATUS_INVALID_ARGUMENT (text: tare_error_text(NULL)).
 */
TARE_API tare_status tare_loss_describe(int32_t kind, tare_loss_description *description);

typedef enum tare_parameter_type {
  TARE_PARAMETER_TYPE_NUMBER = 0,    /**< double */
  TARE_PARAMETER_TYPE_INTEGER = 1,   /**< int32_t */
  TARE_PARAMETER_TYPE_CHOICE = 2,    /**< int32_t: an index into `choices` */
  TARE_PARAMETER_TYPE_PER_CLASS = 3, /**< const float *: [classes], device memory, or NULL */
  TARE_PARAMETER_TYPE_STATE = 4      /**< void *: device memory that the caller keeps, or NULL */
} tare_parameter_type;

/** One parameter of a loss: its place in tare_loss_spec, its type and its range. */
typedef struct tare_parameter_description {
  uint64_t struct_size;
  const char *name;   /**< "gamma"; never freed */
  const char *option; /**< its name on a command line, with one meaning in all losses; "" if text cannot give it */
  const char *field;  /**< "focal.gamma": its field in tare_loss_spec, as error texts name it */
  const char *help;   /**< one line of text */
  const char *limits; /**< the range as text, such as "in [0,10000]"; "" if there is none */
  const char *const *choices; /**< TARE_PARAMETER_TYPE_CHOICE: the names by value, then NULL. Other types: NULL */
  int32_t type;               /**< a tare_parameter_type */
  int32_t offset;             /**< of the value, in bytes from the start of tare_loss_spec */
  double low, high;           /**< the range */
  double default_value;       /**< what tare_loss_spec_init sets; 0 for pointers, which are NULL */
  int32_t low_is_excluded, high_is_excluded;
  int32_t negative_is_off; /**< 1: any negative number turns the parameter off; low is -infinity */
  int32_t reserved;
} tare_parameter_description;

/**
 * Describes parameter `index`, from 0, of a loss.
 * @param description  set `description->struct_size` before the call. Bytes that this version does not know become 0.
 * @return TARE_STATUS_OK or TARE_STATUS_INVALID_ARGUMENT (text: tare_error_text(NULL)).
 */
TARE_API tare_status tare_loss_parameter(int32_t kind, int32_t index, tare_parameter_description *description);

/** @return a text that says how this library was built: version, compiler, CUDA, CBLAS. Never NULL. */
TARE_API const char *tare_build_description(void);

/* ------------------------------------------------------------------------------------------------------------------
 * 12. Masks: dice, Tversky, focal Tversky and focal loss on the logits of mask heads
 * --------------------------------------------------------------------------------------------------------------- */

/**
 * The loss of a mask. Over the mask's pixels that count, with p = sigmoid(x) and target t:
 *
 *   TP = sum p*t, FP = sum p*(1-t), FN = sum (1-p)*t
 *   T = (TP + numerator_smoothing)/(TP + false_positive_weight*FP + false_negative_weight*FN + denominator_smoothing)
 *   overlap = (1-T)^exponent
 *   focal = mean over the pixels of alpha_t*s^gamma*CE, the sigmoid focal loss of tare_loss_kind
 *   L = mask weight*(overlap_weight*overlap + focal_weight*focal)
 *
 *   dice                       weights 1/2 and 1/2: T = 2*TP/(sum p + sum t) (arXiv 1606.04797 with `squared`). A
 *                              smoothing s in 1 - (2*TP + s)/(sum p + sum t + s) is s/2 in both fields here
 *   Tversky                    other weights: alpha and beta of arXiv 1706.05721. Jaccard has 1 and 1
 *   focal Tversky              exponent 0.75 (arXiv 1810.07842). The paper writes 1/gamma with gamma 4/3. So code that
 *                              divides by a parameter of 4/3 has the exponent 0.75. The symmetric and asymmetric losses
 *                              of arXiv 2102.04525 have this form too
 *   focal and dice of masks    focal_weight above 0 (MaskFormer, DETR, SAM). The logits are read no more often
 *
 * `squared`: FP is the sum of (p-t)^2 where p > t, and FN where p <= t. With weights 1/2 and 1/2, T is then 2*TP/(sum
 * p^2 + sum t^2), as in V-Net and by default in mmdetection.
 *
 * 1-T is formed from FP, FN and the smoothing, so nothing cancels. Where 1-T is 0 the gradient is 0, for every
 * exponent. Where the denominator is 0, T is 1: there was nothing to find, and nothing was found. A mask whose targets
 * are all 0, without smoothing, has T = 0 if any p is above 0. Its overlap loss is then 1, with a gradient of 0.
 */
typedef struct tare_mask_spec {
  uint64_t struct_size;
  double false_positive_weight; /**< [1e-30,1e30] or 0; default 0.5 */
  double false_negative_weight; /**< [1e-30,1e30] or 0; default 0.5 */
  double exponent;              /**< [0.01,100]; default 1 */
  double numerator_smoothing;   /**< [1e-30,denominator_smoothing] or 0; default 0.5 */
  double denominator_smoothing; /**< [1e-30,1e30] or 0; default 0.5 */
  double overlap_weight;        /**< [1e-30,1e30] or 0; default 1 */
  double focal_weight;          /**< [1e-30,1e30] or 0 (default): no focal loss is computed */
  double alpha;                 /**< of the focal loss: [0,1]; negative: off. Default 0.25 */
  double gamma;                 /**< of the focal loss: [0,10000]; default 2 */
  int32_t squared;              /**< 0 (default) or 1 */
  int32_t reserved;             /**< 0 */
} tare_mask_spec;

/** Fills the defaults: dice loss with s = 1. */
TARE_API void tare_mask_spec_init_sized(tare_mask_spec *spec, uint64_t struct_size);
#define tare_mask_spec_init(spec) tare_mask_spec_init_sized((spec), sizeof *(spec))

/** The type of the targets of masks. The first four are those of tare_dtype. */
typedef enum tare_mask_target {
  TARE_MASK_TARGET_F32 = 0,
  TARE_MASK_TARGET_F16 = 1,
  TARE_MASK_TARGET_BF16 = 2,
  TARE_MASK_TARGET_F64 = 3,
  TARE_MASK_TARGET_U8 = 4 /**< 0 or 1 (also C's bool), or tare_masks::ignore_target */
} tare_mask_target;

/**
 * Masks of equal size. The pixels of a mask are contiguous. Masks are `stride` elements apart, which may be 0 or
 * negative in an input. Pointers need the alignment of their elements.
 *
 * Pixels whose `valid` is 0, or whose target is ignore_target, do not count: they add nothing and have a gradient of 0,
 * whatever their logits and targets are.
 *
 * Targets out of range. A t in [-1e-3,1.001] (f16 and bf16: [-0.01,1.01]) is clamped to [0,1]. A pixel with any other
 * target, or NaN, makes its mask invalid. An invalid mask adds nothing, has a gradient and sums of 0, and does not
 * count. The call writes every output, returns TARE_STATUS_INVALID_TARGET and names mask and pixel. On a GPU
 * tare_context_synchronize returns it and names the mask as a row. A mask of weight 0 adds nothing and has a gradient
 * of 0. Its targets are not checked. With logits narrower than f64, targets in f64 are rounded to f32 first.
 */
typedef struct tare_masks {
  uint64_t struct_size;
  int64_t masks;         /**< >= 0, < 2^31 */
  int64_t pixels;        /**< of each mask; >= 0, < 2^40 */
  const void *logits;    /**< [masks, pixels] of dtype; device memory, like every array here */
  int64_t logits_stride; /**< default `pixels`, as for the other two strides */
  const void *targets;   /**< [masks, pixels] of target_dtype */
  int64_t targets_stride;
  const uint8_t *valid; /**< [masks, pixels]: 0 where a pixel does not count; NULL: all count */
  int64_t valid_stride;
  const float *mask_weights; /**< [masks], contiguous, may be negative; NULL: 1 */
  int32_t dtype;             /**< a tare_dtype, of logits and gradient; default TARE_DTYPE_F32 */
  int32_t target_dtype;      /**< a tare_mask_target; default TARE_MASK_TARGET_F32 */
  int32_t ignore_target;     /**< of u8 targets: 2..255; -1 (default): none */
  int32_t reserved;          /**< 0 */
} tare_masks;

/** Fills the defaults for masks of this number and size. */
TARE_API void tare_masks_init_sized(tare_masks *masks, int64_t count, int64_t pixels, uint64_t struct_size);
#define tare_masks_init(masks, count, pixels) tare_masks_init_sized((masks), (count), (pixels), sizeof *(masks))

/** Sums over the pixels of one mask that count; see tare_mask_spec. */
typedef struct tare_mask_sums {
  double true_positives, false_positives, false_negatives;
  double focal;   /**< sum of alpha_t*s^gamma*CE; 0 if focal_weight is 0 */
  int64_t pixels; /**< how many count */
  int64_t reserved;
} tare_mask_sums;

/**
 * Outputs. NULL means "not requested". Loss and gradient are divided by the normalizer's divisor:
 *
 *   TARE_NORMALIZER_SUM    1
 *   TARE_NORMALIZER_ROWS   the number of masks that count, at least 1. A mask counts unless it is invalid or none of
 *                          its pixels counts. A mask that does not count adds nothing, whatever the smoothing is
 *   TARE_NORMALIZER_VALUE  normalizer_value, or the number at normalizer_pointer
 *
 * Other normalizers are TARE_STATUS_UNSUPPORTED. Scale and pointers are as in tare_output.
 */
typedef struct tare_mask_output {
  uint64_t struct_size;
  void *loss;                      /**< one scalar of loss_dtype: the sum of L over the masks, over the divisor */
  void *overlap_loss;              /**< the same with mask weight*overlap, without overlap_weight */
  void *focal_loss;                /**< the same with mask weight*focal, without focal_weight; 0 if focal_weight is 0 */
  int32_t loss_dtype;              /**< TARE_DTYPE_F32 (default) or TARE_DTYPE_F64 */
  int32_t normalizer;              /**< default TARE_NORMALIZER_SUM */
  double normalizer_value;         /**< it and its reciprocal are finite; default 1 */
  const float *normalizer_pointer; /**< device memory; or NULL */
  double gradient_scale;           /**< finite in f32; default 1 */
  const float *gradient_scale_pointer; /**< a factor of gradient_scale; device memory; or NULL */
  void *gradient;          /**< [masks, pixels] of the logits' type; may be the logits themselves, with their stride */
  int64_t gradient_stride; /**< default `pixels` */
  void *mask_loss;         /**< [masks]: L of each, without divisor; f32 (f64 for f64 logits) */
  tare_mask_sums *sums;    /**< [masks]; aligned to 8 bytes */
} tare_mask_output;

/** Fills the defaults for masks of this size. */
TARE_API void tare_mask_output_init_sized(tare_mask_output *output, int64_t pixels, uint64_t struct_size);
#define tare_mask_output_init(output, pixels) tare_mask_output_init_sized((output), (pixels), sizeof *(output))

/**
 * Computes the loss of masks, its gradient, or both. Logits and targets are read once for the sums, and once more for a
 * gradient. The sums of a mask are formed in a fixed order, for any number of threads or blocks. The call needs a
 * workspace (tare_context_set_workspace), and puts all work on `stream`.
 *
 * Infinities. x = -inf has p = 0, and x = +inf has p = 1. There focal loss is infinite if the target is on the other
 * side. A NaN logit of a pixel that counts makes the mask's loss NaN. It also makes the mask's gradient NaN wherever p
 * is not 0 or 1.
 *
 * Accuracy, for finite logits and any number of pixels. The relative error of a loss is at most 1e-6, with focal loss
 * 1e-6*(1+gamma) (f64 logits: 1e-12). An exponent above 1 multiplies it. The error of a gradient is at most 1e-5 of the
 * mask's largest (f64: 1e-12), or one rounding to f16 or bf16. At a target between 0 and 1 terms of opposite sign are
 * added. There the largest is that of the terms. With `squared` p-t cancels, too, and is as exact as p and t.
 *
 * @return TARE_STATUS_OK, TARE_STATUS_INVALID_ARGUMENT, TARE_STATUS_UNSUPPORTED (f64 logits on a GPU),
 *         TARE_STATUS_WORKSPACE_TOO_SMALL, TARE_STATUS_CUDA_ERROR; on the CPU also TARE_STATUS_INVALID_TARGET.
 */
TARE_API tare_status tare_mask_evaluate(tare_context *context, const tare_mask_spec *spec, const tare_masks *masks,
                                        const tare_mask_output *output, tare_stream stream);

/**
 * Bytes of workspace that tare_mask_evaluate needs. They are at most 128, plus 128 for each mask, plus 48 for every
 * 8192 pixels of a mask (rounded up).
 * @return TARE_STATUS_OK or TARE_STATUS_INVALID_ARGUMENT.
 */
TARE_API tare_status tare_mask_workspace_size(tare_context *context, const tare_masks *masks, uint64_t *bytes);

/* ------------------------------------------------------------------------------------------------------------------
 * 13. Accuracy and limits
 *
 * An ulp is the distance between neighbouring numbers of a type at the exact result. The bounds hold for every finite
 * logit, compared with the formula without rounding. They are tested on the CPU and on an emulated GPU.
 *
 * Row and element losses of f32, f16 and bf16 logits, and gradients of f32, in ulp of f32:
 *   sigmoid CE, GHM-C, GHM-R     4
 *   sigmoid focal                4*(1+gamma)
 *   sigmoid Poly-1               4*(2+gamma)
 *   varifocal, matchability      4*(1+gamma); at a label's element 4
 *   quality focal                4*(1+beta)
 *   IoU-aware                    4*(1+gamma); at a label's element 6
 *   smoothed CE, smoothed focal  4*(1+gamma)
 *   asymmetric, heatmap focal    4*(1+gamma); with a margin 6*(1+gamma); with a heatmap 4*beta more
 *   reduced focal                4*(1+gamma)
 *   focal star                   6
 *   softmax CE                   4 + r,             r = the largest |x_k - m|, m the largest logit off the label
 *   softmax focal                4*(1+gamma) + r
 *   distribution focal, two-hot  6 + r
 *   softmax logit-adjusted       4 + r + 2s,        r of z = x + offset, s = the largest |z_k| of a class not excluded
 *   softmax Seesaw               4 + (1+2q)*(r + s) + 2p*n, s = the largest |x_k|, n = the largest |log n_k|, all three
 *                                over the batch
 *   softmax LDAM                 4 + 2r,            r of z = s*x
 *
 * Weights (alpha, class, row, element, positive, negative, 1/GD), divisor and scale add 0.5 each. The bound is then
 * this number times 2^-23 of the result. (A product may have an ulp half as large as its factor.) A row loss is a sum
 * of elements. On a GPU this sum is in f32: its bound is larger by 1e-6 of the sum of the elements' sizes.
 *
 * Gradients of f16 and bf16 logits: 1 ulp of that type.
 *
 * Gradients and losses of f64 logits: 1e-13 of the result, or 1e-14*(1+gamma) with gamma > 5. A softmax loss adds
 * r*2.3e-16. In logit-adjusted, Seesaw and LDAM loss r is replaced by what the table adds to 4.
 *
 * Results below 1e-30 (f64: 1e-290) may instead be off by 1e-36 (1e-290), before weights, epsilon, divisor
 * and scales.
 *
 * Cancellation. With targets and scores strictly between 0 and 1, and in Poly-1 with a negative epsilon, terms are
 * subtracted. There an ulp is that of the terms, not of the result. For the gradient of a sigmoid loss the terms are
 * weight*s^gamma*(p + t), and the additions of focal and Poly-1; for varifocal weight*t*(p + t). For CE itself they are
 * weight*(CE + 2*max(x,0)*t). With TARE_WEIGHTING_TERMS the terms of the gradient are w*t*(1-p) and v*(1-t)*p, and the
 * loss subtracts nothing; both bounds are then 5 ulp. For matchability-aware and IoU-aware labels t is the target that
 * the score gives. For the gradients of softmax CE, distribution focal loss and two-hot cross-entropy the terms are T*p
 * + t, where T is the sum of the row's targets. With label smoothing t is the smoothed target times the modulator. With
 * z-loss and A = log C + the largest |z_k| of a class not excluded, the terms are CE + 2*z_loss*A^2 for the loss, and p
 * + t + 2*z_loss*A*p for the gradient. Alpha counts 2 ulp. In quality focal loss s = |p-t| may be off by 4 ulp of p +
 * t, and the power beta passes this error on. With beta below 1 the gradient is unbounded near p = t. There it is only
 * as exact as s.
 *
 * The scalar loss is the sum of these losses in double, divided in double and rounded to its type. On a GPU a thread
 * adds its share of a tile in f32. If all losses have one sign, the relative error is at most that of their elements
 * plus 5e-7*(1+gamma) (f16 and bf16 logits: 1.25e-6*(1+gamma)). With losses of both signs the error is relative to the
 * sum of their sizes.
 *
 * Fused head. Logits and sums of gradients also have the error of a product in f32. At worst it is half an ulp of the
 * sum of the terms' sizes, for each term. It is usually far less. On a GPU, f16 and bf16 add half an ulp of that type
 * to each gradient by a logit.
 *
 * Limits.
 *
 *   - A soft target in (0,1) at x = -inf or +inf gives the loss +inf for any gamma. The gradient is its finite limit.
 *   - s^gamma*CE and scale/divisor are right whenever their type holds the result, even if a factor is out of range.
 *     The product of an element's weights is formed first, in f32 (f64 logits: in double). Keep it within 1e-30..1e30,
 *     or 0.
 *   - An element's loss must be a finite f32 to be added (f64 logits: a finite double). The sum, and a softmax row's
 *     loss, may exceed f32.
 *   - With z-loss, LSE = +inf gives the loss +inf. The gradient is +inf by the logit that is +inf, and else as without
 *     z-loss. 2*z_loss*LSE must be a finite f32 (f64 logits: a finite double); else it counts as infinite.
 *   - A power or exponential below 1.2e-38 (f64: 3.4e-308) is 0.
 *   - A divisor on the device may be 0, infinite or NaN, and is used unchanged. A gradient of 0 stays 0.
 * --------------------------------------------------------------------------------------------------------------- */

#ifdef __cplusplus
}
#endif

#endif /* TARE_H */
