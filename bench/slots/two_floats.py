# SPDX-License-Identifier: Apache-2.0
"""Two floats at once, as sm_100 computes them: in two registers, or one register or number for both."""

from __future__ import annotations

import numpy as np

from decode import Function, Getter, Instruction, Operand, floats
from execute import Action, makes, put_bits
from machine import Warp


def both(o: Operand) -> list[Getter]:
    if o.kind == "R" and ".F32x2" in o.text and o.number != 255:
        return [floats(o), floats(o._replace(number=o.number + 1))]
    return [floats(o)] * 2


@makes("FADD2", "FMUL2", "FFMA2")
def packed_arithmetic(i: Instruction, _: Function) -> Action:
    values = [both(o) for o in i.operands[1:] if o.kind not in ("P", "UP")]

    def act(w: Warp, lanes: np.ndarray) -> None:
        results = []
        for half in range(2):
            x = [v[half](w) for v in values]
            if i.name == "FFMA2":
                results.append((x[0].astype(np.float64) * x[1] + x[2]).astype(np.float32))
            else:
                results.append(x[0] + x[1] if i.name == "FADD2" else x[0] * x[1])
        for half, result in enumerate(results):
            put_bits(w, i.operands[0], result.astype(np.float32, copy=False).view(np.uint32), lanes, half)

    return act
