/* SPDX-License-Identifier: Apache-2.0 */
/* Problems and captured graphs that the tests of this folder share. */
#ifndef TEST_GPU_H
#define TEST_GPU_H
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "support/cuda_calls.h"
#include "support/problem.h"

static const level_shape head[] = {{9, 7, 3}, {5, 4, 3}, {3, 2, 3}};

static inline problem *flat(int32_t kind, int32_t dtype) { return problem_new(kind, dtype, test_size(3000, 200), 23); }

static inline problem *channels_first(int32_t kind, int32_t dtype) {
  problem *p = problem_new_levels(kind, dtype, 2, 5, 3, head);
  for (int a = 0; a < ARRAY_KINDS; a++) p->place[a].channels_first = true;
  return p;
}

/* ---- Graphs ------------------------------------------------------------------------------------------------------ */

typedef struct capture {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
} capture;

static inline tare_status capture_call(capture *c, tare_context *context, const tare_loss_spec *loss,
                                       const tare_batch *batch, const tare_output *output) {
  c->stream = new_stream();
  wait_for_uploads();
  MUST(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeGlobal));
  const tare_status status = tare_evaluate(context, loss, batch, output, c->stream);
  MUST(cudaStreamEndCapture(c->stream, &c->graph));
  MUST(cudaGraphInstantiate(&c->exec, c->graph, 0));
  return status;
}

static inline void end_capture(capture *c) {
  MUST(cudaStreamSynchronize(c->stream));
  MUST(cudaGraphExecDestroy(c->exec));
  MUST(cudaGraphDestroy(c->graph));
  MUST(cudaStreamDestroy(c->stream));
}

static inline tare_status replay(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                 const tare_output *output, void *times) {
  capture c;
  const tare_status status = capture_call(&c, context, loss, batch, output);
  for (int i = 0; i < *(int *)times; i++) MUST(cudaGraphLaunch(c.exec, c.stream));
  end_capture(&c);
  return status;
}

#endif
