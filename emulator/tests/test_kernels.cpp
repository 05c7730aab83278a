/* SPDX-License-Identifier: Apache-2.0 */
/* Right kernels give right results, under every seed. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <chrono>
#include <random>

#include "kernels.h"
#include "test.h"

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void test_sum(size_t size, unsigned blocks, bool timed) {
  std::vector<float> x(size);
  double expected = 0;
  for (size_t i = 0; i < size; i++) expected += double(x[i] = float(i % 17) - 3);
  const array<float> device(x);
  const array<double> partials(blocks), total(1);
  const array<uint32_t> ticket(1, 0u);
  const auto start = std::chrono::steady_clock::now();
  for (int again = 0; again < (timed ? 1 : 2); again++) { /* the ticket resets itself */
    CHECK_OK(launch_sum(device.data, int64_t(size), partials.data, ticket.data, total.data, blocks, nullptr));
    CHECK(total.get()[0] == expected);
  }
  if (timed) printf("  sum of %zu floats, %u blocks of 256: %.2f s\n", size, blocks, seconds_since(start));
}

void test_focal(unsigned rows, bool timed) {
  const unsigned classes = 80, blocks = 264;
  std::mt19937 random(1);
  std::normal_distribution<float> normal(-4.0f, 2.0f);
  std::vector<float> x(size_t(rows) * classes);
  std::vector<int32_t> labels(rows);
  for (float &v : x) v = normal(random);
  for (unsigned i = 0; i < rows; i++) labels[i] = i % 50 ? -1 : int32_t(random() % classes);
  const array<float> logits(x);
  const array<int32_t> device_labels(labels);
  const array<double> partials(blocks), loss(1);
  const array<uint32_t> ticket(1, 0u);
  const auto start = std::chrono::steady_clock::now();
  CHECK_OK(launch_focal(logits.data, device_labels.data, rows, classes, partials.data, ticket.data, loss.data, blocks,
                        nullptr));
  const std::vector<float> gradient = logits.get();
  if (timed) printf("  focal loss and gradient in place, %u x %u: %.2f s\n", rows, classes, seconds_since(start));

  double sum = 0, worst = 0;
  for (size_t i = 0; i < x.size(); i++) {
    const bool hit = labels[i / classes] == int32_t(i % classes);
    const double z = hit ? x[i] : -double(x[i]), p = 1 / (1 + exp(-z)), q = 1 / (1 + exp(z)), l = log1p(exp(-z));
    const double alpha = hit ? 0.25 : 0.75, dz = -alpha * q * q * (q + 2 * p * l);
    sum += alpha * q * q * l;
    worst = fmax(worst, fabs((hit ? dz : -dz) - gradient[i]));
  }
  CHECK(worst < 1e-6);
  CHECK(fabs(loss.get()[0] - sum) < 1e-5 * sum);
}

void test_rotate() {
  const unsigned rounds = 5, blocks = unsigned(most_rotate_blocks());
  std::vector<uint32_t> values(blocks);
  for (unsigned i = 0; i < blocks; i++) values[i] = 100 + i;
  const array<uint32_t> device(values), state(2, 0u);
  for (int again = 0; again < 2; again++) CHECK_OK(launch_rotate(device.data, state.data, rounds, blocks, true));
  const std::vector<uint32_t> got = device.get();
  for (unsigned i = 0; i < blocks; i++) CHECK(got[i] == values[(i + 2 * rounds) % blocks]);
  CHECK(state.get()[0] == 0 && state.get()[1] == 4 * rounds);
  CHECK(launch_rotate(device.data, state.data, 1, blocks + 1, true) == cudaErrorCooperativeLaunchTooLarge);
  CHECK(cudaGetLastError() == cudaErrorCooperativeLaunchTooLarge);
}

void test_lanes() {
  std::vector<float> x(64);
  for (int i = 0; i < 64; i++) x[size_t(i)] = float(i * 7 % 64) - 20.5f;
  const array<float> device(x), results(lane_results * 64);
  CHECK_OK(launch_lanes(device.data, results.data));
  const std::vector<float> got = results.get();
  for (unsigned t = 0; t < 64; t++) {
    const unsigned lane = t % 32, warp = t - lane;
    const auto at = [&](unsigned l) { return x[warp + l]; };
    float positive = 0, any = 0, sum = 0, most = -1e9f;
    for (unsigned l = 0; l < 32; l++) {
      positive += at(l) > 0;
      any = fmaxf(any, at(l) > 60);
      sum += at(l);
      if (l / 16 == lane / 16) most = fmaxf(most, at(l));
    }
    const float expected[lane_results] = {at(lane ^ 5),
                                          lane + 3 < 32 ? at(lane + 3) : at(lane),
                                          lane >= 3 ? at(lane - 3) : at(lane),
                                          at(7),
                                          at(lane ^ 2),
                                          lane % 8 + 3 < 8 ? at(lane + 3) : at(lane),
                                          at(lane / 16 * 16 + 1),
                                          positive,
                                          any,
                                          1,
                                          sum,
                                          most};
    for (unsigned r = 0; r < lane_results; r++) CHECK(got[r * 64 + t] == expected[r]);
  }
}

/* From the formats' definitions. */
float half_value(uint16_t bits, int exponent_bits) {
  const int fraction_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1), fraction = bits & ((1 << fraction_bits) - 1);
  const float sign = bits >> 15 ? -1.0f : 1.0f;
  if (exponent == (1 << exponent_bits) - 1) return fraction ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * ldexpf(float(fraction), 1 - bias - fraction_bits);
  return sign * ldexpf(float(fraction + (1 << fraction_bits)), exponent - bias - fraction_bits);
}

bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); }

void test_halves() {
  const array<float> from_half(65536), from_bf16(65536);
  const array<uint16_t> half_again(65536), bf16_again(65536);
  CHECK_OK(launch_halves(from_half.data, from_bf16.data, half_again.data, bf16_again.data));
  const std::vector<float> h = from_half.get(), b = from_bf16.get();
  const std::vector<uint16_t> ha = half_again.get(), ba = bf16_again.get();
  unsigned wrong = 0;
  for (unsigned i = 0; i < 65536; i++) {
    wrong += !same_bits(h[i], half_value(uint16_t(i), 5)) || !same_bits(b[i], half_value(uint16_t(i), 8));
    wrong += !isnan(h[i]) && ha[i] != i;
    wrong += !isnan(b[i]) && ba[i] != i;
  }
  CHECK(wrong == 0);
  printf("  65536 values of f16 and of bf16, there and back\n");
}

/* Rounding to the nearest, and to even halfway: halfway between neighbours, and a little to either side. */
void test_rounding() {
  std::vector<float> x;
  std::vector<uint16_t> half, bf16;
  const auto add = [](std::vector<float> &to, std::vector<uint16_t> &expected, uint16_t low, int bits) {
    const float a = half_value(low, bits), b = half_value(uint16_t(low + 1), bits), middle = a + (b - a) / 2;
    for (const float v : {nextafterf(middle, a), middle, nextafterf(middle, b)}) {
      to.push_back(v);
      expected.push_back(v < middle || (v == middle && low % 2 == 0) ? low : uint16_t(low + 1));
    }
  };
  std::vector<float> x_half, x_bf16;
  for (unsigned i = 0; i < 0x7bff; i += 5) add(x_half, half, uint16_t(i), 5);
  for (unsigned i = 0x0080; i < 0x7f7f; i += 5) add(x_bf16, bf16, uint16_t(i), 8);
  const size_t halves = x_half.size();
  x = x_half;
  x.insert(x.end(), x_bf16.begin(), x_bf16.end());
  const array<float> device(x);
  const array<uint16_t> to_half(x.size()), to_bf16(x.size());
  CHECK_OK(launch_round(device.data, to_half.data, to_bf16.data, unsigned(x.size())));
  const std::vector<uint16_t> h = to_half.get(), b = to_bf16.get();
  unsigned wrong = 0;
  for (size_t i = 0; i < halves; i++) wrong += h[i] != half[i];
  for (size_t i = halves; i < x.size(); i++) wrong += b[i] != bf16[i - halves];
  CHECK(wrong == 0);
  printf("  %zu roundings at and beside the middle\n", x.size());
}

void test_functions() {
  const std::vector<float> x = {-INFINITY, -200, -126.5f, -1,     -0.0f, 0,     1e-40f,   1e-30f, 0.3f,
                                1,         2,    3,       127.5f, 128,   3e38f, INFINITY, NAN};
  const array<float> device(x), results(4 * x.size());
  CHECK_OK(launch_functions(device.data, results.data, unsigned(x.size())));
  const std::vector<float> got = results.get();
  for (size_t i = 0; i < x.size(); i++) {
    const auto near = [&](size_t row, double y) {
      const float flushed = fabs(y) < 1.17549435e-38 ? copysignf(0.0f, float(y)) : float(y);
      const float a = got[row * x.size() + i];
      return same_bits(a, flushed) || fabs(a - y) <= 2e-7 * fabs(y);
    };
    const double v = fabs(double(x[i])) < 1.17549435e-38 ? copysign(0.0, x[i]) : double(x[i]);
    CHECK(near(0, exp2(v)));
    CHECK(near(1, log2(v)));
    CHECK(near(2, 1 / v));
    CHECK(near(3, sqrt(v)));
  }
  std::mt19937_64 random(2);
  std::vector<uint64_t> a(1000), b(1000);
  for (size_t i = 0; i < a.size(); i++) a[i] = random(), b[i] = random();
  const array<uint64_t> da(a), db(b), high64(1000);
  const array<uint32_t> high32(1000);
  CHECK_OK(launch_high(da.data, db.data, high64.data, high32.data, 1000));
  unsigned wrong = 0;
  for (size_t i = 0; i < a.size(); i++) {
    /* By halves, as at school. */
    const uint64_t al = uint32_t(a[i]), ah = a[i] >> 32, bl = uint32_t(b[i]), bh = b[i] >> 32;
    const uint64_t middle = (al * bl >> 32) + uint32_t(ah * bl) + uint32_t(al * bh);
    wrong += high64.get()[i] != ah * bh + (ah * bl >> 32) + (al * bh >> 32) + (middle >> 32);
    wrong += high32.get()[i] != uint32_t(al * bl >> 32);
    if (i == 20) break;
  }
  CHECK(wrong == 0);
}

void test_histogram() {
  std::vector<uint32_t> keys(10000);
  std::vector<uint64_t> expected(12000, 0);
  std::mt19937 random(3);
  for (uint32_t &k : keys) expected[k = uint32_t(random() % 7 * 1700)]++;
  const array<uint32_t> device(keys);
  const array<uint64_t> counts(12000, uint64_t(0));
  CHECK_OK(launch_histogram(device.data, 10000, counts.data, 12000, 48000));
  CHECK(counts.get() == expected);
  CHECK(launch_histogram(device.data, 10000, counts.data, 12000, 60000) == cudaErrorInvalidValue);
  CHECK(allow_histogram(70000) == cudaErrorInvalidValue); /* more than "tiny" has */
  CHECK_OK(allow_histogram(60000));
  CHECK_OK(launch_histogram(device.data, 10000, counts.data, 12000, 60000));
  CHECK_OK(allow_histogram(49152));
  cudaGetLastError();
}

void test_indices() {
  const dim3 grid(3, 2, 2), block(5, 3, 4);
  for (int by_address = 0; by_address < 2; by_address++) {
    const array<uint32_t> out(12 * 60, 0u);
    CHECK_OK((by_address ? launch_indices_by_address : launch_indices)(out.data, grid, block));
    const std::vector<uint32_t> got = out.get();
    unsigned wrong = 0;
    for (uint32_t b = 0; b < 12; b++)
      for (uint32_t t = 0; t < 60; t++)
        wrong +=
            got[b * 60 + t] != (b / 6 << 20 | b / 3 % 2 << 16 | b % 3 << 12 | t / 15 << 8 | t / 5 % 3 << 4 | t % 5);
    CHECK(wrong == 0);
  }
}

/* 60 GB; only a few pages of them exist. */
void test_far() {
  const int64_t stride = int64_t(5) << 28;
  float *base = nullptr;
  CHECK_OK(cudaMalloc(reinterpret_cast<void **>(&base), size_t(stride) * 4 * 11 + 4));
  CHECK_OK(launch_far(base, stride, 12));
  float last = 0;
  CHECK_OK(cudaMemcpy(&last, base + 11 * stride, 4, cudaMemcpyDeviceToHost));
  CHECK(last == 11);
  CHECK_OK(cudaFree(base));
}

}  // namespace

void test_kernels() {
  test_sum(100000, 7, false);
  test_focal(500, false);
  test_rotate();
  test_lanes();
  test_histogram();
  test_indices();
}

void test_numbers() {
  test_halves();
  test_rounding();
  test_functions();
  test_far();
}

void test_speed() {
  test_sum(size_t(8) << 20, 264, true);
  test_sum(size_t(8) << 20, 8192, true);
  test_focal(100000, true);
}
