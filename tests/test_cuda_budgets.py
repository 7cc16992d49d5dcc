"""What a pass costs by count: warp instructions of the compiled PTX beside the bytes they take in.

At an H200's 4.8 TB/s each of 132 multiprocessors takes in 20.2 bytes a clock of 1.8 GHz, and can
issue four instructions. ptxas makes other instructions of the PTX; its moves of registers, of which
these counts have many, it mostly drops. On an H200 the kernels that need up to 1.5 run at 0.76 to
0.93 of its read bandwidth and those that need 2.3 to 2.7 at two thirds; those that need more are
bound by this count. The kernels before these needed 5 to 20.
"""

import numpy as np
import pytest
from ptx_runner import DEVICES, become, build, load

BYTES_PER_CLOCK = 4.8e12 / 132 / 1.8e9
# d, k, PTX instructions per clock at the full bandwidth: at most.
BUDGETS = [
    (1, 1, 2.35),
    (2, 1, 1.75),
    (3, 1, 1.5),
    (4, 1, 1.5),
    (5, 1, 1.35),
    (7, 1, 1.25),
    (8, 1, 1.2),
    (9, 1, 2.45),
    (16, 1, 1.45),
    (17, 1, 2.85),
    (33, 1, 2.6),
    (64, 1, 1.35),
    (100, 1, 1.55),
    (129, 1, 2.4),
    (257, 1, 2.45),
    (1000, 1, 1.25),
    (1025, 1, 2.6),
    (4096, 1, 1.25),
    (16384, 1, 1.45),
    (2, 2, 1.95),
    (16, 2, 1.85),
    (256, 2, 1.75),
    (16, 4, 2.95),
    (256, 4, 3.65),
    (16, 8, 4.6),
    (256, 8, 7.1),
    (256, 16, 13.7),
]


@pytest.fixture(scope="module")
def runner(request):
    built = build(request.config.cache.mkdir("ptx_runner"))
    module = load(built.module)
    become(module, built, DEVICES["sm_90 of 132"])
    machine = module.machine()
    machine.l2_bytes, machine.first_block_only, machine.counting = 50 << 20, True, True
    yield module
    machine.l2_bytes, machine.first_block_only, machine.counting = 1 << 20, False, False


def count(runner, n, d, k):
    """Instructions of block 0 in the fused kernel."""
    runner.machine().instructions = {}

    def device(*shape):
        zeros = np.zeros(shape, np.float32)
        return runner.cuda.from_bytes(zeros.reshape(-1).view(np.uint8), "float32", shape)

    runner.cuda.loss_and_grad(device(n, d), device(d, k), device(n, k))
    counts = runner.machine().instructions
    return sum(sum(c.values()) for name, c in counts.items() if "FusedKernel" in name)


@pytest.mark.parametrize(("d", "k", "budget"), BUDGETS)
def test_instructions_per_clock(runner, d, k, budget):
    row = 4 * (d + k)
    n = 132 * 2 * max((256 << 10) // row, 8)
    # For twice as many rows, less what does not depend on them.
    instructions = count(runner, 2 * n, d, k) - count(runner, n, d, k)
    assert instructions > 0
    assert instructions / (n * row / 132) * BYTES_PER_CLOCK <= budget
