/* SPDX-License-Identifier: Apache-2.0 */
/* ranks_mpi.c with NCCL: a batch split over the GPUs of this machine gives the loss and gradient that the whole batch
 * gives on one. One process, one thread: Tare puts its work on a stream and returns, so a plain loop keeps every GPU
 * busy. With one process for each GPU the same calls need no loops and no group.
 *
 *   ranks_nccl                        exit status 0 if nothing differs by more than rounding, 77 below two GPUs
 *   ranks_nccl --without-reduction    without the all-reduce: exit status 1 */
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdlib.h>

#include "ranks.h"

enum { MAX_GPUS = 16, SKIPPED = 77 };

struct gpu {
  tare_context *context;
  cudaStream_t stream; /* the work of Tare and of NCCL, in this order */
  ncclComm_t comm;
  float *logits, *gradient; /* from here on: memory of the GPU, with room for the whole batch */
  int32_t *labels;
  double *loss;
  tare_counts *counts;
  int64_t *state;
  struct share mine;
  tare_level level;
  tare_batch batch;
};
static struct gpu gpus[MAX_GPUS];
static int ranks, reduce = 1;

static void need(const struct gpu *gpu, tare_status status) {
  if (status == TARE_STATUS_OK) return;
  fprintf(stderr, "rank %td: %s: %s\n", gpu - gpus, tare_status_name(status), tare_error_text(gpu->context));
  exit(2);
}
static void need_cuda(cudaError_t error) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  exit(2);
}
static void need_nccl(ncclResult_t result) {
  if (result == ncclSuccess) return;
  fprintf(stderr, "NCCL: %s\n", ncclGetErrorString(result));
  exit(2);
}

/* ---- The two things to know ---------------------------------------------------------------------------------------
 *
 * Here the gradients of the ranks are parts of one gradient, to be summed. Data-parallel training that *averages* over
 * W ranks (what PyTorch's DistributedDataParallel does) wants the global divisor divided by W: max(1, positives) / W.
 * GHM has no divisor to set. There output.gradient_scale = W does the same for the gradient. */

/* Positives: count, add up over the GPUs, and only then clamp, once: a rank without objects adds a 0 and not a 1. The
 * host reads the sum and waits for it. To avoid the wait, form the divisor on the GPU, for normalizer_pointer. */
static void focal(void) {
  for (struct gpu *gpu = gpus; gpu < gpus + ranks; gpu++)
    need(gpu, tare_label_counts(gpu->context, &gpu->batch, gpu->counts, NULL, gpu->stream));
  need_nccl(ncclGroupStart());
  for (struct gpu *gpu = gpus; reduce && gpu < gpus + ranks; gpu++)
    need_nccl(
        ncclAllReduce(gpu->counts, gpu->counts, sizeof(tare_counts) / 8, ncclInt64, ncclSum, gpu->comm, gpu->stream));
  need_nccl(ncclGroupEnd());

  for (struct gpu *gpu = gpus; gpu < gpus + ranks; gpu++) {
    tare_counts counts;
    tare_loss_spec focal;
    tare_output output;
    need_cuda(cudaMemcpyAsync(&counts, gpu->counts, sizeof counts, cudaMemcpyDeviceToHost, gpu->stream));
    need_cuda(cudaStreamSynchronize(gpu->stream));
    tare_loss_spec_init(&focal, TARE_LOSS_SIGMOID_FOCAL);
    tare_output_init(&output), output.loss = gpu->loss, output.loss_dtype = TARE_DTYPE_F64;
    output.normalizer = TARE_NORMALIZER_VALUE,
    output.normalizer_value = counts.positives > 1 ? (double)counts.positives : 1;
    need(gpu, tare_evaluate(gpu->context, &focal, &gpu->batch, &output, gpu->stream));
  }
}

/* GHM: count gradient norms, add up N and the counts, then let every GPU form the same density from them. The rest of
 * the state, momentum included, never travels: it follows from the counts. Nothing waits. */
static void ghm(void) {
  tare_loss_spec ghm;
  tare_loss_spec_init(&ghm, TARE_LOSS_GHM_C);
  ghm.ghm.bins = BINS, ghm.ghm.momentum = 0.75;

  for (struct gpu *gpu = gpus; gpu < gpus + ranks; gpu++) {
    ghm.ghm.state = gpu->state;
    need(gpu, tare_ghm_histogram(gpu->context, &ghm, &gpu->batch, gpu->stream));
  }
  need_nccl(ncclGroupStart());
  for (struct gpu *gpu = gpus; reduce && gpu < gpus + ranks; gpu++)
    need_nccl(ncclAllReduce(gpu->state + 1, gpu->state + 1, 1 + BINS, ncclInt64, ncclSum, gpu->comm, gpu->stream));
  need_nccl(ncclGroupEnd());

  for (struct gpu *gpu = gpus; gpu < gpus + ranks; gpu++) {
    tare_output output;
    tare_output_init(&output), output.loss = gpu->loss, output.loss_dtype = TARE_DTYPE_F64;
    ghm.ghm.state = gpu->state, ghm.ghm.use_stored_density = 0;
    need(gpu, tare_ghm_density_update(gpu->context, &ghm, gpu->stream));
    ghm.ghm.use_stored_density = 1;
    need(gpu, tare_evaluate(gpu->context, &ghm, &gpu->batch, &output, gpu->stream));
  }
}

/* ---- The proof ------------------------------------------------------------------------------------------------- */

static float logits[ROWS * CLASSES];
static int32_t labels[ROWS];
static struct outcome together, alone;
static int64_t *state_alone; /* on GPU 0 */

static void *device_memory(size_t bytes) {
  void *memory;
  need_cuda(cudaMalloc(&memory, bytes));
  need_cuda(cudaMemset(memory, 0, bytes));
  return memory;
}

/* Puts one rank's rows where the GPU reads them, and NaN where it should write. */
static void deal(struct gpu *gpu, struct share mine) {
  const size_t elements = (size_t)mine.rows * CLASSES;
  gpu->mine = mine;
  tare_level_init_rows(&gpu->level, mine.rows, CLASSES);
  gpu->level.logits = gpu->logits, gpu->level.labels = gpu->labels, gpu->level.gradient = gpu->gradient;
  tare_batch_init(&gpu->batch), gpu->batch.levels = &gpu->level, gpu->batch.level_count = 1;
  gpu->batch.classes = CLASSES;
  need_cuda(cudaSetDevice((int)(gpu - gpus))); /* clearing, unlike copying, needs the stream's own device */
  const float *first = logits + mine.first * CLASSES;
  need_cuda(cudaMemcpyAsync(gpu->logits, first, elements * sizeof *logits, cudaMemcpyHostToDevice, gpu->stream));
  need_cuda(cudaMemcpyAsync(gpu->labels, labels + mine.first, (size_t)mine.rows * sizeof *labels,
                            cudaMemcpyHostToDevice, gpu->stream));
  need_cuda(cudaMemsetAsync(gpu->gradient, 0xff, elements * sizeof *gpu->gradient, gpu->stream));
}

/* Waits for a GPU and adds its loss and its rows of the gradient. */
static void collect(struct gpu *gpu, const int64_t *words, size_t bytes, struct outcome *outcome) {
  double loss;
  need(gpu, tare_context_synchronize(gpu->context, gpu->stream));
  need_cuda(cudaMemcpy(&loss, gpu->loss, sizeof loss, cudaMemcpyDeviceToHost));
  outcome->loss += loss;
  need_cuda(cudaMemcpy(outcome->gradient + gpu->mine.first * CLASSES, gpu->gradient,
                       (size_t)gpu->mine.rows * CLASSES * sizeof *gpu->gradient, cudaMemcpyDeviceToHost));
  need_cuda(cudaMemcpy(outcome->words, words, bytes, cudaMemcpyDeviceToHost));
}

/* The whole batch on GPU 0, in one call: TARE_NORMALIZER_POSITIVES, or a GHM state that tare_evaluate updates by
 * itself. */
static void evaluate_alone(int32_t kind) {
  struct gpu *gpu = &gpus[0];
  tare_loss_spec loss;
  tare_output output;
  deal(gpu, (struct share){0, ROWS});
  tare_loss_spec_init(&loss, (tare_loss_kind)kind);
  tare_output_init(&output), output.loss = gpu->loss, output.loss_dtype = TARE_DTYPE_F64;
  if (kind == TARE_LOSS_GHM_C) {
    loss.ghm.bins = BINS, loss.ghm.momentum = 0.75, loss.ghm.state = state_alone;
  } else {
    output.normalizer = TARE_NORMALIZER_POSITIVES, output.counts = gpu->counts;
  }
  need(gpu, tare_evaluate(gpu->context, &loss, &gpu->batch, &output, gpu->stream));
}

static int step_of(enum corner corner, int32_t kind, int step) {
  const size_t bytes = kind == TARE_LOSS_GHM_C ? sizeof together.words : sizeof(tare_counts);
  memset(&together, 0, sizeof together), memset(&alone, 0, sizeof alone);
  fill(corner, ranks, step, logits, labels);
  for (int r = 0; r < ranks; r++) deal(&gpus[r], share_of(corner, r, ranks));
  if (kind == TARE_LOSS_GHM_C)
    ghm();
  else
    focal();
  for (int r = ranks - 1; r >= 0; r--) /* the words of rank 0 remain; all ranks have the same */
    collect(&gpus[r], kind == TARE_LOSS_GHM_C ? gpus[r].state : (int64_t *)(void *)gpus[r].counts, bytes, &together);
  evaluate_alone(kind);
  collect(&gpus[0], kind == TARE_LOSS_GHM_C ? state_alone : (int64_t *)(void *)gpus[0].counts, bytes, &alone);
  return compare(corner, kind, step, &together, &alone);
}

/* All zero is a fresh GHM state. */
static void clear(int64_t *state, cudaStream_t stream) {
  static const int64_t zero[STATE_WORDS];
  need_cuda(cudaMemcpyAsync(state, zero, sizeof zero, cudaMemcpyHostToDevice, stream));
}

static int all_corners(void) {
  int differ = 0;
  for (int corner = 0; corner < CORNERS; corner++) {
    for (int r = 0; r < ranks; r++) clear(gpus[r].state, gpus[r].stream);
    clear(state_alone, gpus[0].stream);
    differ |= step_of((enum corner)corner, TARE_LOSS_SIGMOID_FOCAL, 0);
    for (int step = 0; step < STEPS; step++) differ |= step_of((enum corner)corner, TARE_LOSS_GHM_C, step);
  }
  return differ;
}

static void open_gpus(void) {
  ncclComm_t comms[MAX_GPUS];
  need_nccl(ncclCommInitAll(comms, ranks, NULL));
  for (int r = ranks - 1; r >= 0; r--) { /* ends with GPU 0 as the current one, where state_alone lies */
    struct gpu *gpu = &gpus[r];
    tare_context_options options;
    tare_context_options_init(&options);
    options.device = TARE_DEVICE_CUDA, options.device_index = r;
    need_cuda(cudaSetDevice(r));
    need(gpu, tare_context_create(&gpu->context, &options));
    need_cuda(cudaStreamCreate(&gpu->stream));
    gpu->comm = comms[r];
    gpu->logits = device_memory(sizeof logits), gpu->gradient = device_memory(sizeof logits);
    gpu->labels = device_memory(sizeof labels), gpu->loss = device_memory(sizeof *gpu->loss);
    gpu->counts = device_memory(sizeof *gpu->counts), gpu->state = device_memory(sizeof together.words);
  }
  state_alone = device_memory(sizeof alone.words);
}

static void close_gpus(void) {
  for (struct gpu *gpu = gpus; gpu < gpus + ranks; gpu++) {
    void *const memory[] = {gpu->logits, gpu->gradient, gpu->labels, gpu->loss, gpu->counts, gpu->state};
    for (int i = 0; i < 6; i++) need_cuda(cudaFree(memory[i]));
    need_cuda(cudaStreamDestroy(gpu->stream));
    need_nccl(ncclCommDestroy(gpu->comm));
    tare_context_destroy(gpu->context);
  }
  need_cuda(cudaFree(state_alone));
}

/* Whether there is something to show: a library with CUDA, a driver, and two GPUs. Says what is missing. */
static int possible(void) {
  tare_context *context;
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CUDA;
  const tare_status status = tare_context_create(&context, &options);
  if (status != TARE_STATUS_OK) {
    printf("no GPU for Tare: %s: %s\n", tare_status_name(status), tare_error_text(NULL));
    return 0;
  }
  tare_context_destroy(context);
  need_cuda(cudaGetDeviceCount(&ranks));
  if (ranks > MAX_GPUS) ranks = MAX_GPUS;
  if (ranks < 2) printf("%d GPU: it takes two to split a batch\n", ranks);
  return ranks >= 2;
}

int main(int count, char **arguments) {
  if (count > 1) reduce = strcmp(arguments[1], "--without-reduction") != 0;
  if (count > 2 || (count == 2 && reduce)) {
    fprintf(stderr, "usage: ranks_nccl [--without-reduction]\n");
    return 2;
  }
  if (!possible()) return SKIPPED;
  open_gpus();
  print_heading(ranks, reduce);
  const int differ = all_corners();
  puts(differ ? "The GPUs together are NOT the whole batch." : "The GPUs together are the whole batch.");
  close_gpus();
  return differ ? EXIT_FAILURE : EXIT_SUCCESS;
}
