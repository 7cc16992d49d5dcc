"""What each route of the CUDA kernels takes of a multiprocessor, from the compiled sm_90 code.

    python tests/cuda_routes.py

writes cuda_routes.json, of which docs/generate.py makes a table. Needs nvcc, ptxas, g++ and
pybind11; tests/test_cuda_budgets.py checks it where these are.

Instructions are counted: those of a warp in the compiled PTX, as tests/cpp/ptx_runner executes it,
without moves from register to register and of constants, which ptxas makes no instructions of. At
an H200's 4.8 TB/s each of 132 multiprocessors takes in 20.2 bytes a clock of 1.8 GHz, and can issue
four instructions.
"""

import json
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ptx_runner import DEVICES, ROOT, Built, become, build, load

RECORD = Path(__file__).with_name("cuda_routes.json")
MULTIPROCESSORS = 132
BYTES_PER_CLOCK = 4.8e12 / MULTIPROCESSORS / 1.8e9
# d, k: every route, at the widths that suit it best and worst.
OF_FLOAT32 = [
    *((d, 1) for d in (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33, 64, 100, 129, 256, 257, 1000, 1025)),
    *((d, 1) for d in (4096, 4097, 16384, 40000)),
    *((d, k) for k in (2, 4) for d in (2, 5, 16, 100, 256, 1000, 4096)),
    (16384, 2),
    *((d, k) for k in (8, 16) for d in (5, 16, 40, 64, 100, 256, 512, 1000)),
    (100, 64),
]
# The kernels of 16-bit rows are others for the tensor cores alone.
SHAPES = [
    *((d, k, "float32") for d, k in OF_FLOAT32),
    *((d, k, "bfloat16") for k in (8, 16) for d in (32, 64, 128, 256, 1000)),
    *((d, k, "float16") for k in (8, 16) for d in (48, 64, 256, 512)),
]


def prepare(built: Built) -> ModuleType:
    """The runner as an H200 that counts, and does no more than it must for that."""
    module = load(built.module)
    become(module, built, DEVICES["sm_90 of 132"])
    machine = module.machine()
    machine.l2_bytes, machine.first_block_only, machine.counting = 50 << 20, True, True
    return module


def zeros(runner: ModuleType, *shape: int, dtype: str = "float32") -> Any:
    array = np.zeros(shape, np.float32 if dtype == "float32" else np.float16)
    return runner.cuda.from_bytes(array.reshape(-1).view(np.uint8), dtype, shape)


def count(runner: ModuleType, n: int, d: int, k: int, dtype: str) -> dict[str, float]:
    """Instructions of a multiprocessor, by kernel, if all blocks are as block 0."""
    machine = runner.machine()
    machine.instructions = {}
    shapes = ((n, d), (d, k), (n, k))
    runner.cuda.loss_and_grad(*(zeros(runner, *shape, dtype=dtype) for shape in shapes))
    return {
        kernel: sum(c for opcode, c in counts.items() if not opcode.startswith("mov."))
        * machine.blocks[kernel]
        / MULTIPROCESSORS
        for kernel, counts in machine.instructions.items()
    }


def instructions_per_clock(
    runner: ModuleType, d: int, k: int, dtype: str
) -> tuple[float, list[str]]:
    """What a multiprocessor must issue to take in X and y at full bandwidth, and the kernels.

    For twice as many rows, less what does not depend on them: the finishing kernel's.
    """
    row = (4 if dtype == "float32" else 2) * (d + k)
    n = MULTIPROCESSORS * 2 * max((256 << 10) // row, 8)
    machine = runner.machine()
    whole = machine.ordinal, machine.multiprocessors
    route = runner.cuda.plan(1 << 20, d, k, dtype)["route"]
    if route == "tensor_cores":  # eight groups' tiles of 16 rows, or fewer groups' more often
        n = MULTIPROCESSORS * 8 * 16 * 4
    if route == "blocks_per_row":
        # Which all run, and wait for each other: few rows, on few of them.
        machine.ordinal = machine.multiprocessors = 16
        n = 240
    less, more = count(runner, n, d, k, dtype), count(runner, 2 * n, d, k, dtype)
    machine.ordinal, machine.multiprocessors = whole
    grown = {kernel: more[kernel] - less.get(kernel, 0) for kernel in more}
    total = sum(grown.values())
    assert total > 0
    return total / (n * row / MULTIPROCESSORS) * BYTES_PER_CLOCK, [k for k in grown if grown[k] > 0]


def registers(built: Built) -> dict[str, tuple[int, int]]:
    """A thread's, by kernel, and bytes spilled: what ptxas makes of the PTX."""
    found = {}
    tensor = (f"tensor_{dtype}" for dtype in ("float32", "float16", "bfloat16"))
    for name in ("fused_float32", "chunked", *tensor):
        source = built.ptx(90) / f"{name}.ptx"
        command = ["ptxas", "-arch=sm_90", "-v", str(source), "-o", "/dev/null"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        for entry in said.split("Compiling entry function")[1:]:
            kernel = re.search(r"'(\w+)'", entry)
            used = re.search(r"Used (\d+) registers", entry)
            spilled = re.search(r"(\d+) bytes spill stores", entry)
            assert kernel
            assert used
            assert spilled
            found[kernel[1]] = int(used[1]), int(spilled[1])
    return found


def measure(built: Built) -> list[dict[str, Any]]:
    """A row for each shape."""
    runner, rows = prepare(built), []
    used = registers(built)
    budgets = {(name, most): budget for name, most, budget in runner.cuda.routes()}
    for d, k, dtype in SHAPES:
        plan = runner.cuda.plan((1 << 28) // d, d, k, dtype)
        found, kernels = instructions_per_clock(runner, d, k, dtype)
        rows.append(
            {
                "d": d,
                "k": k,
                "dtype": dtype,
                "route": plan["route"],
                "budget": budgets[plan["route"], plan["most_targets"]],
                "instructions_per_clock": round(found, 2),
                "registers": max(used[kernel][0] for kernel in kernels),
                "spilled_bytes": max(used[kernel][1] for kernel in kernels),
                "warps": plan["threads"] // 32,
                "bytes_in_flight": plan["bytes_in_flight"],
                "blocks": plan["blocks"],
            }
        )
    return rows


def main() -> None:
    rows = measure(build(ROOT / ".pytest_cache/d/ptx_runner"))
    lines = ",\n".join(json.dumps(row) for row in rows)
    RECORD.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
