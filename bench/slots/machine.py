# SPDX-License-Identifier: Apache-2.0
"""A block of threads that executes machine code for sm_90 and counts what each warp issues.

Divergence is the hardware's: a warp is a set of fragments, each with a place in the code and a mask of lanes. A branch
that lanes disagree on splits a fragment, and convergence barriers (BSSY, BSYNC) join it again. So both sides of such a
branch are counted. Nothing is timed.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import numpy as np

LANES = 32
ALL = np.ones(LANES, bool)


class Memory:
    """Global memory: arrays of bytes at their addresses."""

    def __init__(self, areas: dict[int, np.ndarray]) -> None:
        self.areas = sorted(areas.items())

    def find(self, address: int) -> tuple[int, np.ndarray]:
        for start, area in self.areas:
            if start <= address < start + len(area):
                return start, area
        raise IndexError(f"no memory at {address:#x}")

    def places(self, addresses: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The area of the first address, and the offsets of `size` bytes of each."""
        start, area = self.find(int(addresses[0]))
        offsets = (addresses - np.uint64(start)).astype(np.int64)[:, None] + np.arange(size)
        if offsets.min() < 0 or offsets.max() >= len(area):
            raise IndexError(f"beyond the array at {start:#x}")
        return area, offsets


class Fragment:
    """Lanes of a warp that are at the same place."""

    __slots__ = ("at", "mask")

    def __init__(self, at: int, mask: np.ndarray) -> None:
        self.at, self.mask = at, mask


class Waiting(Exception):
    """A fragment goes on when others have come to where it is."""


class Step(NamedTuple):
    """An instruction: what it does to a fragment; returns where the fragment goes on."""

    text: str
    execute: Callable[[Warp, Fragment], int]


class Warp:
    """Registers and fragments of 32 threads."""

    def __init__(self, block: Block, number: int) -> None:
        self.block, self.number = block, number
        self.r = np.zeros((256, LANES), np.uint32)
        self.u = np.zeros((64, 1), np.uint32)
        self.p = np.zeros((8, LANES), bool)
        self.up = np.zeros((8, 1), bool)
        self.p[7] = self.up[7] = True
        self.joins: dict[int, list[np.ndarray | None]] = {}  # by register: the lanes that each lane waits for
        self.live = ALL.copy()
        self.ready = [Fragment(0, ALL.copy())]
        self.parked: dict[tuple[str, int, int], np.ndarray] = {}  # what, register, place: lanes that wait there

    def park(self, what: str, register: int, fragment: Fragment) -> None:
        key = (what, register, fragment.at)
        self.parked[key] = self.parked[key] | fragment.mask if key in self.parked else fragment.mask.copy()

    def wanted(self, what: str, register: int, lanes: np.ndarray) -> np.ndarray:
        if what == "join":
            mask = self.joins[register][int(np.argmax(lanes))]
            assert mask is not None
            return mask & self.live
        return self.live

    def join(self) -> None:
        """Lets fragments go on whose lanes are all there."""
        for key in [k for k in self.parked if k[0] != "block"]:
            lanes = self.parked[key] & self.live
            if not lanes.any():
                del self.parked[key]
            elif (lanes == self.wanted(key[0], key[1], lanes)).all():
                del self.parked[key]
                self.ready.append(Fragment(key[2] + 1, lanes))

    def run(self, steps: list[Step], counts: np.ndarray) -> None:
        """Until every lane has exited or waits for the block."""
        while True:
            self.join()
            if not self.ready:
                break
            fragment = self.ready.pop()
            try:
                while fragment.at >= 0:
                    counts[fragment.at] += 1
                    fragment.at = steps[fragment.at].execute(self, fragment)
            except Waiting:
                pass
            except Exception as error:
                raise RuntimeError(f"{steps[fragment.at].text}: {error!r}") from error
        if any(key[0] != "block" for key in self.parked):
            raise RuntimeError(f"lanes wait for others that do not come: {list(self.parked)}")

    def leave(self, lanes: np.ndarray) -> None:
        self.live = self.live & ~lanes


class Block:
    """A block that runs by itself; `number` is its place in a grid of `grid` blocks of 256 threads."""

    def __init__(self, memory: Memory, banks: dict[int, np.ndarray], number: int, threads: int = 256) -> None:
        self.memory, self.banks, self.number = memory, banks, number
        self.shared = np.full(232 << 10, 0xA5, np.uint8)
        self.voted = self.voting = 0  # threads, at the last barrier and at the next
        self.warps = [Warp(self, i) for i in range(threads // LANES)]

    def run(self, steps: list[Step]) -> np.ndarray:
        """Executes all of it; returns how often each instruction was issued by a warp."""
        counts = np.zeros(len(steps), np.int64)
        with np.errstate(all="ignore"):
            while any(warp.live.any() for warp in self.warps):
                for warp in self.warps:
                    warp.run(steps, counts)
                self.open_barrier()
        return counts

    def open_barrier(self) -> None:
        self.voted, self.voting = self.voting, 0
        for warp in self.warps:
            for key in list(warp.parked):
                if not (warp.parked[key] == warp.live).all():
                    raise RuntimeError(f"a part of a warp waits for the block at {key[2]}")
                warp.ready.append(Fragment(key[2] + 1, warp.parked.pop(key)))
