"""The bits of results, a hash for each route and pair of types: to change one is a decision.

`python tests/test_bits.py` writes data/bits.json anew; the commit that does so says why.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dtype_pairs
import numpy as np
import pytest
import routes

from linreg_ops import kernels

FILE = Path(__file__).parent / "data" / "bits.json"


def hashes(isa):
    """{"route x_type w_type": hash of losses and gradients} of one instruction set."""
    result = {}
    for route in routes.SHAPES:
        for x_type, w_type in dtype_pairs.PAIRS:
            digest = hashlib.blake2b(digest_size=8)
            shapes = routes.takes(isa, route, x_type, w_type)
            for shape in shapes:
                for output in run(isa, x_type, w_type, *shape):
                    digest.update(np.asarray(output).tobytes())
            if shapes:
                key = f"{route} {np.dtype(x_type).name} {np.dtype(w_type).name}"
                result[key] = digest.hexdigest()
    return result


def problem(x_type, w_type, n, d, k):
    rng = np.random.default_rng(n * d + k)

    def values(*shape):  # exact in every type, with sums that are not
        return (rng.integers(-127, 128, shape) / 64).astype(w_type)

    x, w, y = values(n, d).astype(x_type), values(d, k) / w_type(8), values(n, k)
    return x, w, y, np.abs(values(n))


def run(isa, x_type, w_type, n, d, k, descent, threads=None, made=lambda array: array):
    x, w, y, s = map(made, problem(x_type, w_type, n, d, k))
    options = {"sample_weight": s, "isa": isa, "num_threads": threads}
    if descent:
        return kernels.gradient_descent(x, w, y, 2.0**-12, 3, **options)
    return kernels.loss_and_grad(x, w, y, loss_per_target=True, **options)


def same(one, other):
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(one, other, strict=True)
    )


def unaligned(array):
    """The same numbers, an element behind a multiple of 64 bytes."""
    buffer = np.empty(array.nbytes + 64 + array.itemsize, np.uint8)
    begin = -buffer.ctypes.data % 64 + array.itemsize
    result = buffer[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


ISAS = [isa for isa, supported in kernels.isas().items() if supported]


@pytest.mark.parametrize("isa", ISAS)
def test_bits_are_those_on_record(isa):
    found = hashes(isa)
    recorded = json.loads(FILE.read_text())
    assert found == {key: recorded[key] for key in found}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("route", routes.SHAPES)
def test_threads_alignment_and_other_calls_change_no_bit(route, dtype, isa):
    """All that is promised to change nothing, at once: see docs/promises.md."""
    shapes = routes.takes(isa, route, dtype, dtype)
    alone = {shape: run(isa, dtype, dtype, *shape, threads=1) for shape in shapes}
    for shape, expected in alone.items():
        assert same(run(isa, dtype, dtype, *shape, threads=1, made=unaligned), expected), shape
        for threads in (2, 3, 8, 64):
            assert same(run(isa, dtype, dtype, *shape, threads=threads), expected), (shape, threads)
    with ThreadPoolExecutor(4) as pool:  # in each other's way
        together = [
            (shape, pool.submit(run, isa, dtype, dtype, *shape, threads=3)) for shape in 2 * shapes
        ]
    for shape, result in together:
        assert same(result.result(), alone[shape]), shape


@pytest.mark.parametrize("route", [route for route in routes.SHAPES if route != "plain"])
def test_eager_graph_and_xla_give_the_kernels_bits(route):
    import tensorflow as tf
    from launches import needs_custom_calls

    import linreg_ops as lo

    plain_hlo = needs_custom_calls.args[0]  # with other bits
    isa = kernels.active_isa()
    for shape in routes.takes(isa, route, np.float32, np.float32)[:1]:
        *sizes, descent = shape
        x, w, y, s = problem(np.float32, np.float32, *sizes)
        if descent:
            expected = kernels.gradient_descent(x, w, y, 2.0**-12, 3, sample_weight=s)
        else:
            expected = kernels.loss_and_grad(x, w, y, sample_weight=s)

        def call(x, w, y, s, descent=descent):
            if descent:
                return lo.gradient_descent(x, w, y, 2.0**-12, 3, sample_weight=s)
            return lo.linear_l2_loss_and_grad(x, w, y, sample_weight=s)

        compiled = [] if plain_hlo else [tf.function(call, jit_compile=True)]
        for way in (call, tf.function(call), *compiled):
            assert same(way(*map(tf.constant, (x, w, y, s))), expected), shape


def added_up(total, error, a):
    """Knuth's TwoSum."""
    result = total + a
    added = result - total
    return result, error + ((total - (result - added)) + (a - added))


def test_plain_adds_up_in_the_order_that_its_file_describes(rng):
    """The record's numbers are so short that double loses nothing of them, in whatever order."""
    n, k = 1000, 16
    x, w, y, s = (np.exp(rng.standard_normal(shape)) for shape in ((n, 1), (1, k), (n, k), n))
    loss, grad = kernels.loss_and_grad(x, w, y, sample_weight=s, loss_per_target=True, isa="scalar")
    r = x * w - y
    for terms, result in ((s[:, None] * r * r, 2 * loss), (s[:, None] * r * x, grad[0])):
        total = error = np.zeros(k)
        for slot in terms.reshape(8, n // 8, k):
            of_slot = lost = np.zeros(k)
            for begin in range(0, len(slot), 64):
                of_slot, lost = added_up(of_slot, lost, sum(slot[begin : begin + 64]))
            total, error = added_up(total, error, of_slot + lost)
        np.testing.assert_array_equal(result, total + error)


def test_every_route_and_pair_of_types_is_on_record():
    keys = json.loads(FILE.read_text())
    assert {key.split()[0] for key in keys} == set(kernels.routes())
    assert (
        len(keys) == (len(kernels.routes()) - 1) * len(dtype_pairs.PAIRS) + 2
    )  # packed: of two types


if __name__ == "__main__":
    recorded = {}
    for name, supported in kernels.isas().items():
        if supported:
            recorded |= hashes(name)
    FILE.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
