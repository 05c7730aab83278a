/* SPDX-License-Identifier: Apache-2.0 */
/* Events, and graphs: a graph is the list of what was submitted during a capture, with its arguments copied. */
#include "device.h"
#include "stream.h"

using namespace emulator;

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
  return api(__func__, [&] {
    if (!event) return cudaErrorInvalidValue;
    *event = new CUevent_st;
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return api(__func__, [&] {
    if (!event) return cudaErrorInvalidResourceHandle;
    wait_for_all(); /* queued work may hold it */
    delete event;
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return api(__func__, [&] {
    const CUstream_st *s = find_stream(stream);
    if (!event || !s) return cudaErrorInvalidResourceHandle;
    event->recording = s->recording;
    if (s->recording) return cudaSuccess;
    event->recorded = true;
    event->done = false;
    return submit(stream, {"event", [event] {
                             event->done = true;
                             event->when = std::chrono::steady_clock::now();
                           }});
  });
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}

/* One queue in order of submission: nothing to wait for. An event of a capture draws the stream into it. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return api(__func__, [&] {
    CUstream_st *s = find_stream(stream);
    if (!event || !s) return cudaErrorInvalidResourceHandle;
    const std::shared_ptr<capture> c = event->recording.lock();
    if (!c || s->recording == c) return cudaSuccess;
    if (s->recording) return cudaErrorStreamCaptureMerge;
    s->recording = c;
    c->streams.push_back(s);
    return cudaSuccess;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return api(__func__, [&] {
    if (!event) return cudaErrorInvalidResourceHandle;
    return event->recording.lock() ? cudaErrorCapturedEvent : wait_for_all();
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return api(__func__, [&] {
    if (!event) return cudaErrorInvalidResourceHandle;
    if (event->recording.lock()) return cudaErrorCapturedEvent;
    const bool done = !event->recorded || event->done;
    if (!done) wait_for_all();
    return done ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return api(__func__, [&] {
    if (!milliseconds) return cudaErrorInvalidValue;
    if (!start || !end || !start->recorded || !end->recorded) return cudaErrorInvalidResourceHandle;
    if (!start->done || !end->done) return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(end->when - start->when).count();
    return cudaSuccess;
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
  return api(__func__, [&] {
    if (!graph || !count) return cudaErrorInvalidValue;
    if (nodes) return cudaErrorNotSupported; /* only their number is known */
    *count = graph->work.size();
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long) {
  return api(__func__, [&] {
    if (!executable || !graph) return cudaErrorInvalidValue;
    *executable = new CUgraphExec_st{graph->work};
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return api(__func__, [&] {
    if (!executable) return cudaErrorInvalidValue;
    for (const operation &work : executable->work) {
      const cudaError_t status = submit(stream, work);
      if (status) return status;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return api(__func__, [&] {
    delete graph;
    return graph ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return api(__func__, [&] {
    delete executable;
    return executable ? cudaSuccess : cudaErrorInvalidValue;
  });
}
