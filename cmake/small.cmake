# SPDX-License-Identifier: Apache-2.0
# TARE_SMALL, for the wheel for CPUs, which has three instruction sets in less than 1 MB. What is seldom hot is compiled
# for size: the baseline, which is for machines of before 2013, and f64. For f64 AVX-512 takes AVX2's kernels.
# cpu/doubles.c, which serves every type, stays fast. Loops are not doubled for a condition that does not change in them:
# 4 % of the wheel, for 6 % more instructions of focal loss with dense targets and 3 % of softmax CE with three classes
# (AVX2); no other counted call changes by more than 1 %. Loops that are unrolled as a whole are smaller, too: 3 % of the
# wheel, and no loss measurably slower.

set(small -Os -DTARE_SMALL)
set(no_tails "")
set(less_peeling "")
if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
  set(no_tails --param=vect-epilogues-nomask=0) # what is left of a loop, up to 7 elements with AVX2, is done one by one
  set(less_peeling --param=max-completely-peeled-insns=60)
endif()
set(TARE_OBJECT_FLAGS -fno-asynchronous-unwind-tables -fno-unwind-tables) # nothing unwinds
set(tare_instruction_sets baseline avx2 avx512)
tare_add_kernels(baseline all doubles.c ${small})
tare_add_kernels(baseline f32 instance.c ${small} -DTARE_REAL_BITS=32)
tare_add_kernels(baseline f64 instance.c ${small} -DTARE_SMALLEST -DTARE_REAL_BITS=64)
tare_add_kernels(avx2 all doubles.c -O3 ${no_tails})
tare_add_kernels(avx2 f32 instance.c -O3 -fno-unswitch-loops ${less_peeling} ${no_tails} -DTARE_REAL_BITS=32)
tare_add_kernels(avx2 f64 instance.c ${small} -DTARE_REAL_BITS=64)
tare_add_kernels(avx512 all doubles.c -O3 ${no_tails})
tare_add_kernels(avx512 f32 instance.c -O3 -fno-split-loops -fno-split-paths -fno-unswitch-loops ${less_peeling}
                 -DTARE_REAL_BITS=32)
list(APPEND TARE_ISA_DEFINITIONS TARE_SMALL=1)
