"""What a pass costs by count: every route of the CUDA table is held to its budget.

ptxas makes other instructions of the PTX that is counted: about as many, without the moves. On an
H200 the kernels of one target that need up to 1 run at 0.85 to 0.95 of its read bandwidth, those
that need more at 0.78 to 0.93; for five targets and more the count is the limit.
"""

import json

import pytest
from cuda_routes import MULTIPROCESSORS, RECORD, SHAPES, instructions_per_clock, prepare, zeros
from ptx_runner import DEVICES, become, build

KNOWN = {(row["d"], row["k"], row["dtype"]): row for row in json.loads(RECORD.read_text())}


@pytest.fixture(scope="module")
def runner(request):
    module = prepare(build(request.config.cache.mkdir("ptx_runner")))
    yield module
    machine = module.machine()
    machine.l2_bytes, machine.first_block_only, machine.counting = 1 << 20, False, False


def test_every_route_is_counted(runner):
    routes = {(name, most): budget for name, most, budget in runner.cuda.routes()}
    assert all(budget > 0 for budget in routes.values())
    plans = [runner.cuda.plan(1 << 20, d, k) for d, k, dtype in SHAPES if dtype == "float32"]
    assert {(plan["route"], plan["most_targets"]) for plan in plans} == routes.keys()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("most", [8, 16])
def test_tensor_cores_are_counted_in_every_type(runner, dtype, most):
    shapes = [(d, k) for d, k, other in SHAPES if other == dtype and k == most]
    plans = [runner.cuda.plan(1 << 20, d, k, dtype) for d, k in shapes]
    ours = [plan for plan in plans if plan["route"] == "tensor_cores"]
    # A group of one warp, and of as many as a block has.
    assert {32, 256} <= {plan["lanes"] for plan in ours}


@pytest.mark.parametrize(("d", "k", "dtype"), SHAPES)
def test_instructions_per_clock(runner, d, k, dtype):
    plan = runner.cuda.plan((1 << 28) // d, d, k, dtype)
    routes = {(name, most): budget for name, most, budget in runner.cuda.routes()}
    found, _ = instructions_per_clock(runner, d, k, dtype)
    assert found <= routes[plan["route"], plan["most_targets"]]
    # The documentation's table is of these kernels, but for another nvcc's habits.
    assert found == pytest.approx(KNOWN[d, k, dtype]["instructions_per_clock"], rel=0.05)
    for key in ("route", "blocks", "bytes_in_flight"):
        assert plan[key] == KNOWN[d, k, dtype][key]
    if plan["route"] == "tensor_cores":
        # Half of a tile's columns, or shared memory for no more than four tiles: else 40 KB.
        assert plan["bytes_in_flight"] >= 30 << 10
        assert plan["blocks"] == MULTIPROCESSORS
        assert KNOWN[d, k, dtype]["spilled_bytes"] == 0


@pytest.mark.parametrize(("d", "k"), [(d, k) for d, k, _ in SHAPES if k <= 4])
def test_memory_has_enough_to_do(runner, d, k):
    """40 KB under way in each multiprocessor, and no multiprocessor without a block, but for the
    few that a team of blocks for each row leaves over; none has two, whose registers it lacks."""
    plan = runner.cuda.plan((1 << 28) // d, d, k)
    if plan["route"] == "chunks":
        pytest.skip("rows that no block holds")
    assert plan["bytes_in_flight"] >= 40 << 10
    assert 0.95 * MULTIPROCESSORS <= plan["blocks"] <= MULTIPROCESSORS
    assert KNOWN[d, k, "float32"]["spilled_bytes"] == 0


def test_wide_rows_leave_narrow_sums(runner):
    """float32 from each block, where these are all it has: half the bytes that all blocks write and
    the finishing kernel's read again."""
    runner.machine().global_bytes = {}
    x, w, y = (zeros(runner, *shape) for shape in ((1000, 16384), (16384, 1), (1000, 1)))
    runner.cuda.loss_and_grad(x, w, y)
    finish = sum(b for name, b in runner.machine().global_bytes.items() if "FinishKernel" in name)
    assert finish == 32 * MULTIPROCESSORS * 4  # block 0's columns, of each multiprocessor


@pytest.fixture
def five(runner, request):
    """The same with five multiprocessors, whose blocks all run: a descent is one launch of them."""
    built = build(request.config.cache.mkdir("ptx_runner"))
    become(runner, built, DEVICES["sm_90 of 5"])
    yield runner
    become(runner, built, DEVICES["sm_90 of 132"])


def a_step(runner, n, d):
    """What block 0 does for one more step: instructions by opcode, and bytes from global memory."""
    counts = []
    for steps in (2, 6):
        machine = runner.machine()
        machine.instructions, machine.global_bytes = {}, {}
        arrays = (zeros(runner, *shape) for shape in ((n, d), (d,), (n,)))
        runner.cuda.gradient_descent(*arrays, 0.1, steps)
        fused = [name for name in machine.instructions if "FusedKernel" in name]
        assert len(fused) == 1
        counts.append((machine.instructions[fused[0]], machine.global_bytes[fused[0]]))
    (less, few_bytes), (more, many_bytes) = counts
    found = {opcode: (c - less.get(opcode, 0)) / 4 for opcode, c in more.items()}
    return found, (many_bytes - few_bytes) / 4


def total(counts, prefix=""):
    return sum(
        c
        for opcode, c in counts.items()
        if opcode.startswith(prefix) and not opcode.startswith("mov.")
    )


def test_a_step_of_a_small_problem(five):
    """50 x 2: one warp; X, W and all sums stay on the chip, and only y is read again."""
    counts, loaded = a_step(five, 50, 2)
    assert loaded <= 8 * 32 * 4  # as many rows as the warp's lanes have in an iteration
    assert total(counts) <= 900
    assert total(counts, "bar.") <= 6
    assert total(counts, "shfl.") <= 45


def test_a_step_of_one_block(five):
    """1000 x 10: y alone is read again."""
    _, loaded = a_step(five, 1000, 10)
    assert loaded <= 4 * 1280


def test_a_step_of_rows_that_fit_the_chip(five):
    """What each of 132 multiprocessors has of 100,000 x 60: its 180 KB of X are read once. An H200
    takes 9,700 clocks to read them from its memory; twice that is asked for, at 1.5 a clock."""
    counts, loaded = a_step(five, 5 * 758, 60)
    # y by each of a row's four lanes, and the five blocks' sums of gradient and loss
    assert loaded <= 4 * 4 * 768 + 5 * 61 * 8 + 16
    assert total(counts) <= 1.5 * 2 * 9700


def test_a_step_of_few_columns_that_fit_the_chip(five):
    _, loaded = a_step(five, 5 * 20_000, 2)
    assert loaded <= 4 * 20_480 + 1000
