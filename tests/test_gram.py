"""The Gram engine: truth, bits, folds, checkpoints, and what it refuses."""

import copy
import hashlib
import io
import itertools
import json
import pickle
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from fresh import run

from linreg_ops import _kernels, kernels
from linreg_ops.kernels import GramState, gram

HASHES = Path(__file__).parent / "data" / "gram_bits.json"
BFLOAT16 = ml_dtypes.bfloat16
TYPES = [np.float16, BFLOAT16, np.float32, np.float64]
ISAS = [isa for isa, supported in kernels.isas().items() if supported]
FUSED = [isa for isa in ISAS if isa != "scalar"]
B = GramState.BLOCK_ROWS
U = 2.0**-53

# [n, d, k]: around blocks, runs, panels and groups of panels, and where threads share a block.
SHAPES = [
    (0, 3, 2),
    (1, 1, 0),
    (5, 3, 1),
    (255, 7, 1),
    (B - 1, 8, 9),
    (B, 9, 8),
    (B + 257, 64, 3),
    (2 * B + 1, 65, 0),
    (B, 0, 5),
    (3 * B + 5, 200, 17),
    (B + 1, 3, 700),
    (B + 300, 520, 9),
]


def equal(a, b):
    return all(np.array_equal(p, q, equal_nan=True) for p, q in zip(a, b, strict=True))


def whole(n, d, k):
    """Small integers, which add up without rounding, and weights of both signs.

    As float64, whose products NumPy leaves to BLAS: a fortieth of int64's time.
    """
    rng = np.random.default_rng(n + 7 * d + 13 * k)
    return tuple(rng.integers(-8, 9, shape).astype(float) for shape in ((n, d), (n, k), (n,)))


def truth(x, y, s):
    sx, sy = x * s[:, None], y * s[:, None]
    return (sx.T @ x, sx.T @ y, (sy * y).sum(0), sx.sum(0), sy.sum(0), s.sum(), len(x))


def normal(n, d, k, dtype=np.float64):
    rng = np.random.default_rng(n * d + k)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in ((n, d), (n, k), (n,)))


def batches(state, x, y, rows, **columns):
    for begin in range(0, len(x), rows):
        part = slice(begin, begin + rows)
        state.update(x[part], y[part], **{name: a[part] for name, a in columns.items()})
    return state


# Truth.


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_of_integers_are_exact(isa, shape):
    x, y, s = whole(*shape)
    plain, weighted = truth(x, y, np.ones_like(s)), truth(x, y, s)
    for dtype in TYPES if shape[1] < 200 else TYPES[:1]:
        for y_type in {np.float32, dtype}:
            targets = y.astype(y_type) if shape[2] else None
            assert equal(gram(x.astype(dtype), targets, isa=isa), plain)
            weights = s.astype(dtype)
            found = gram(x.astype(dtype), targets, sample_weight=weights, isa=isa)
            assert equal(found, weighted)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(B + 9, 11, 3), (3000, 300, 2)])
def test_shift_and_scale_are_applied_to_the_rows(isa, shape):
    x, y, s = whole(*shape)
    _, d, k = shape
    x_shift, y_shift = np.arange(d) % 5 - 2, np.arange(k) + 3
    found = gram(
        (x + 1000).astype(np.float16),
        y.astype(BFLOAT16),
        sample_weight=s.astype(np.float32),
        x_shift=x_shift + 1000,
        y_shift=y_shift,
        x_scale=np.full(d, 0.25),
        y_scale=np.full(k, 2.0),
        isa=isa,
    )
    xx, xy, yy, x_sum, y_sum, weight, rows = truth(x - x_shift, y - y_shift, s)
    assert equal(found, (xx / 16, xy / 2, yy * 4, x_sum / 4, y_sum * 2, weight, rows))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", TYPES)
def test_errors_stay_within_their_bound(isa, dtype):
    x, y, s = normal(20_000, 9, 3, dtype)
    found = gram(x, y, sample_weight=s, isa=isa)
    with np.errstate(under="ignore"):
        wide = [a.astype(np.longdouble) for a in (x, y, s)]
        exact = truth(*wide)
        sizes = truth(*map(np.abs, wide))
    for a, b, size in zip(found, exact, sizes, strict=True):
        assert np.all(np.abs(a - b) <= 138 * U * size)


def test_the_error_does_not_grow_with_the_rows():
    # Each square loses bits that only the kept errors bring back: 2^22 blocks of the same sum.
    state = GramState(1)
    state.update(np.full((B, 1), 1 / 3))
    for _ in range(22):
        state.merge(state)
    exact = np.longdouble(B) * 2**22 * np.longdouble(1 / 3) ** 2
    assert abs(state.result().xx[0, 0] - exact) <= 138 * U * exact
    plain = np.float64(0)
    block = state.result().xx[0, 0] / 2**22
    for _ in range(2**20):
        plain += block
    assert abs(plain / 2**20 - block) > 10 * abs(state.result().xx[0, 0] / 2**22 - block)


def test_the_matrix_is_symmetric_to_the_bit():
    x, y, s = normal(3000, 70, 2)
    xx = gram(x, y, sample_weight=s).xx
    assert np.array_equal(xx, xx.T)


def test_a_vector_of_targets_is_a_column():
    x, y, _ = normal(100, 4, 1)
    assert equal(gram(x, y), gram(x, y[:, 0]))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_spreads_as_in_the_formulas(isa, value):
    x, y, s = whole(3 * B, 20, 2)
    x, y = x.astype(np.float64), y.astype(np.float64)
    x[5, 3] = value
    x[5, 4] = 0
    with np.errstate(invalid="ignore"):
        assert equal(gram(x, y, isa=isa), truth(x, y, np.ones(len(x))))
    s = np.zeros(len(x))
    assert np.isnan(gram(x, y, sample_weight=s, isa=isa).xx[3]).all()


def test_subnormals_and_overflow_are_ieee():
    x = np.array([[5e-324, 2.0**-537, 1e200]])
    found = gram(x)
    with np.errstate(over="ignore"):
        assert np.array_equal(found.xx, x.T * x)
    assert found.xx[1, 1] == 2.0**-1074
    assert found.xx[2, 2] == np.inf


def test_a_power_of_two_brings_extremes_into_range():
    x = np.full((B + 1, 1), 1.5e300)
    found = gram(x, x_scale=[2.0**-997], x_shift=[1.5e300])
    assert found.xx[0, 0] == 0
    found = gram(x, x_scale=[2.0**-997])
    assert found.xx[0, 0] == pytest.approx((B + 1) * (1.5e300 * 2.0**-997) ** 2, rel=1e-14)


# Bits.

BIT_SHAPES = [(4000, 5, 1), (3500, 33, 2), (2200, 150, 40), (2100, 300, 3)]


@pytest.mark.parametrize("isa", FUSED)
@pytest.mark.parametrize("shape", BIT_SHAPES)
def test_bits_are_those_on_record(isa, shape):
    assert hash_of(isa, shape) == json.loads(HASHES.read_text())["x".join(map(str, shape))]


def hash_of(isa, shape):
    n, d, k = shape
    rng = np.random.default_rng(n * d + k)

    def values(*size):  # exact in float32, whose products are not in float64 after the shift
        return (rng.integers(-(2**20), 2**20, size) / 2**16).astype(np.float32)

    x, y, s = values(n, d), values(n, k), values(n)
    digest = hashlib.blake2b(digest_size=8)
    for weights in (None, s):
        shift = np.full(d, 1 / 3)
        for array in gram(x, y, sample_weight=weights, x_shift=shift, isa=isa):
            digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("shape", BIT_SHAPES)
def test_batches_and_threads_change_no_bit(shape):
    n, d, k = shape
    x, y, s = normal(*shape)
    expected = gram(x, y, sample_weight=s, x_shift=x[0], num_threads=1)
    for rows, threads in itertools.product((1, 7, 1000, n), (1, 2, 3)):
        if rows == 1 and (threads > 1 or d > 100):
            continue
        state = GramState(d, k, x_shift=x[0], num_threads=threads)
        found = batches(state, x, y, rows, sample_weight=s).result()
        assert equal(found, expected), (rows, threads)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("d", "k"), [(1, 0), (1, 1), (0, 3), (3, 2), (8, 1), (1, 11), (12, 0)])
def test_few_columns_have_the_bits_of_blocks_across_two_batches(d, k, dtype, isa):
    # Where rows wait for a block, none lies as one piece, whose runs would go into lanes.
    x, y, s = normal(3 * B + 5, d, k, dtype)
    for weights in ({}, {"sample_weight": s}):
        whole = GramState(d, k, x_shift=np.full(d, 1 / 3), isa=isa)
        whole.update(x, y if k else None, **weights)
        pieces = GramState(d, k, x_shift=np.full(d, 1 / 3), isa=isa)
        for begin in range(-B, 3 * B, B):
            part = slice(max(0, begin + 700), begin + B + 700)
            part_weights = {name: a[part] for name, a in weights.items()}
            pieces.update(x[part], y[part] if k else None, **part_weights)
        assert equal(whole.result(), pieces.result())


def test_one_row_at_a_time_changes_no_bit_where_blocks_are_shared():
    x, y, s = normal(B + 3, 260, 2)
    state = batches(GramState(260, 2), x, y, 1, sample_weight=s)
    assert equal(state.result(), gram(x, y, sample_weight=s))


@pytest.mark.parametrize("dtype", TYPES)
def test_types_that_hold_the_same_numbers_give_the_same_bits(dtype):
    x, y, s = (a.astype(dtype) for a in normal(2500, 13, 3))
    wide = [a.astype(np.float64) for a in (x, y, s)]
    expected = gram(wide[0], wide[1], sample_weight=wide[2])
    assert equal(gram(x, y, sample_weight=s), expected)
    mixed = GramState(13, 3)
    mixed.update(x[:900], wide[1][:900], sample_weight=s[:900])
    mixed.update(wide[0][900:], y[900:], sample_weight=wide[2][900:])
    assert equal(mixed.result(), expected)


def test_weights_of_one_are_no_weights():
    x, y, _ = normal(3000, 20, 2)
    assert equal(gram(x, y, sample_weight=np.ones(3000)), gram(x, y))
    state = GramState(20, 2).update(x[:500], y[:500]).update(x[500:600], y[500:600])
    state.update(x[600:], y[600:], sample_weight=np.ones(2400))
    assert equal(state.result(), gram(x, y))


def test_products_of_floats_are_exact_without_fma_too():
    x, y, _ = normal(3000, 20, 2, np.float32)
    assert equal(gram(x, y, isa="scalar"), gram(x, y))


@pytest.mark.parametrize("shape", [(5000, 9, 2), (9000, 190, 90)])
def test_a_fold_has_the_bits_of_its_rows_alone(shape):
    n, d, k = shape
    x, y, s = normal(*shape)
    fold = np.random.default_rng(1).integers(0, 4, n)
    fold[fold == 2] = 3  # an empty one
    states = {}
    for rows in (333, n):
        states[rows] = batches(GramState(d, k, folds=4), x, y, rows, sample_weight=s, fold=fold)
    for f in range(4):
        mine = fold == f
        expected = gram(x[mine], y[mine], sample_weight=s[mine])
        for state in states.values():
            assert equal(state.result(f), expected)
    for chosen in (None, [0, 3], [3, 0, 1]):
        a, b = (state.result(chosen) for state in states.values())
        assert equal(a, b)
        mine = np.isin(fold, range(4) if chosen is None else chosen)
        exact = truth(x[mine], y[mine], s[mine])
        for found, value in zip(a, exact, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-10, atol=1e-9)
    assert states[n].fold_rows.tolist() == np.bincount(fold, minlength=4).tolist()


@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("cut", [0, 1, B - 1, B, 1500])
def test_a_checkpoint_goes_on_to_the_same_bits(folds, cut):
    x, y, s = normal(2500, 13, 2)
    fold = np.arange(2500) % folds
    expected = GramState(13, 2, folds=folds, x_shift=x[0], y_scale=[2.0, 0.5])
    expected.update(x, y, sample_weight=s, fold=fold)
    state = GramState(13, 2, folds=folds, x_shift=x[0], y_scale=[2.0, 0.5])
    state.update(x[:cut], y[:cut], sample_weight=s[:cut], fold=fold[:cut])
    file = io.BytesIO()
    np.savez(file, **state.to_arrays())
    file.seek(0)
    restored = [
        GramState.from_arrays(np.load(file)),
        pickle.loads(pickle.dumps(state)),
        copy.deepcopy(state),
        state,
    ]
    for each in restored:
        each.update(x[cut:], y[cut:], sample_weight=s[cut:], fold=fold[cut:])
        assert equal(each.result(), expected.result())
        assert each.rows == 2500


def test_result_leaves_the_state_as_it_is():
    x, y, _ = normal(1500, 5, 2)
    state = GramState(5, 2).update(x[:1300], y[:1300])
    first = state.result()
    assert equal(first, state.result())
    assert first.rows == 1300
    assert equal(state.update(x[1300:], y[1300:]).result(), gram(x, y))


# Merging.


@pytest.mark.parametrize(("first", "second"), [(0, 700), (700, 0), (B, B), (1500, 1700), (3, 5)])
def test_merge_adds_the_rows(first, second):
    x, y, s = whole(first + second, 12, 3)
    x, y, s = x.astype(np.float32), y.astype(np.float32), s.astype(np.float32)
    a, b = (
        GramState(12, 3).update(x[part], y[part], sample_weight=s[part])
        for part in (slice(first), slice(first, None))
    )
    before = b.result()
    assert equal(a.merge(b).result(), gram(x, y, sample_weight=s))
    assert a.rows == first + second
    assert equal(b.result(), before)
    # The rows that wait go on waiting.
    more = np.ones((2000, 12), np.float32)
    a.update(more, more[:, :3].copy())
    assert a.rows == first + second + 2000
    assert a.result().weight == s.sum() + 2000


@pytest.mark.parametrize("isa", ISAS)
def test_merge_brings_the_errors_of_its_sums(isa):
    """2⁶⁰ + 1 is no double: what it lacks is kept, and left over where the 2⁶⁰ are taken off."""
    large, ones = np.full((B, 1), 2.0**30), np.ones((B, 1))
    for to_the_larger in (False, True):
        both = GramState(1, isa=isa).update(large).update(ones)
        negative = GramState(1, isa=isa).update(large, sample_weight=-np.ones(B))
        merged = both.merge(negative) if to_the_larger else negative.merge(both)
        assert merged.result().xx == B


def test_merge_of_folds_keeps_them_apart():
    x, y, _ = whole(4000, 6, 1)
    x, y = x.astype(np.float32), y.astype(np.float32)
    fold = np.arange(4000) % 3
    a = GramState(6, 1, folds=3).update(x[:1700], y[:1700], fold=fold[:1700])
    b = GramState(6, 1, folds=3).update(x[1700:], y[1700:], fold=fold[1700:])
    a.merge(b)
    for f in range(3):
        assert equal(a.result(f), gram(x[fold == f], y[fold == f]))


def test_merging_a_state_with_itself_doubles_it():
    x, _, _ = whole(1500, 4, 0)
    state = GramState(4).update(x.astype(np.float32))
    single = state.result()
    doubled = state.merge(state).result()
    assert np.array_equal(doubled.xx, 2 * single.xx)
    assert doubled.rows == 3000


def test_merge_refuses_a_state_of_another_kind():
    with pytest.raises(ValueError, match="other must have the same d: 2, got 3"):
        GramState(2).merge(GramState(3))
    with pytest.raises(ValueError, match="same x_shift"):
        GramState(1).merge(GramState(1, x_shift=[2.0]))
    with pytest.raises(TypeError, match="other must be a GramState, got dict"):
        GramState(1).merge({})


# What is refused, with the state as it was.

X, Y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "x must be a NumPy array, got list", {"x": [[1.0, 2.0]]}),
        (TypeError, "x must be float32, float64, float16 or bfloat16", {"x": X.astype(int)}),
        (TypeError, "x must be .* native byte order", {"x": X.astype(">f4")}),
        (TypeError, "x must be", {"x": X.astype(np.longdouble)}),
        (TypeError, "x must be", {"x": X.astype(np.complex64)}),
        (TypeError, "x must be", {"x": X.astype(object)}),
        (ValueError, "x must be C-contiguous", {"x": np.ones((2, 4), np.float32).T}),
        (ValueError, "x must be C-contiguous", {"x": np.broadcast_to(np.float32(1), (4, 2))}),
        (ValueError, r"x must be \[n, 2\], got shape \(4, 3\)", {"x": np.ones((4, 3))}),
        (ValueError, r"x must be \[n, 2\], got shape \(4,\)", {"x": np.ones(4)}),
        (ValueError, r"x must be \[n, 2\], got shape \(\)", {"x": np.array(1.0)}),
        (ValueError, r"y must be \[4, 1\], got None", {"y": None}),
        (ValueError, r"y must be \[4, 1\] for x of shape \(4, 2\), got", {"y": np.ones((3, 1))}),
        (ValueError, r"y must be \[4, 1\]", {"y": np.ones((4, 2))}),
        (ValueError, r"y must be \[4, 1\]", {"y": np.ones((1, 4, 1))}),
        (ValueError, "y must be C-contiguous", {"y": np.ones((8, 1))[::2]}),
        (ValueError, r"sample_weight must be \[4\]", {"sample_weight": np.ones(3)}),
        (ValueError, r"sample_weight must be \[4\]", {"sample_weight": np.ones((4, 1))}),
        (TypeError, "sample_weight must be a NumPy array", {"sample_weight": [1.0] * 4}),
        (TypeError, "sample_weight must be float32", {"sample_weight": np.ones(4, int)}),
        (ValueError, r"fold must be \[4\], as the state has folds = 2", {"fold": None}),
        (ValueError, r"fold must be \[4\], got shape \(3,\)", {"fold": [0, 1, 0]}),
        (TypeError, "fold must hold integers, got float64", {"fold": np.zeros(4)}),
        (ValueError, "fold must hold numbers from 0 to 1, got 2 at 3", {"fold": [0, 1, 0, 2]}),
        (ValueError, "fold must hold numbers from 0 to 1, got -1 at 0", {"fold": [-1, 1, 0, 1]}),
        (ValueError, "fold must hold", {"fold": np.array([0, 0, 0, 2**63], np.uint64)}),
    ],
)
def test_update_refuses(error, message, arguments):
    state = GramState(2, 1, folds=2)
    given = {"x": X, "y": Y, "fold": [0, 1, 1, 0]} | arguments
    with pytest.raises(error, match=message):
        state.update(given.pop("x"), given.pop("y"), **given)
    assert state.rows == 0
    assert not state.result().xx.any()


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "d must be an integer, got 2.0", {"d": 2.0}),
        (TypeError, "d must be an integer, got True", {"d": True}),
        (ValueError, "d must be an integer from 0", {"d": -1}),
        (ValueError, "d must be an integer from 0 to", {"d": 2**63}),
        (ValueError, r"d \+ k must be at least 1", {"d": 0, "k": 0}),
        (ValueError, "more bytes than there are", {"d": 2**62}),
        (ValueError, "more bytes than there are", {"d": 2**31}),
        (ValueError, "more bytes than there are", {"d": 1000, "folds": 2**50}),
        (ValueError, "folds must be at least 1", {"folds": 0}),
        (ValueError, r"x_shift must be \[2\], got shape \(3,\)", {"x_shift": [1, 2, 3]}),
        (ValueError, r"y_shift must be \[1\], got shape \(\)", {"y_shift": 1.0}),
        (ValueError, "x_shift must be finite, got nan", {"x_shift": [0, np.nan]}),
        (ValueError, "x_scale must hold powers of two, got 3.0", {"x_scale": [1, 3]}),
        (ValueError, "x_scale must hold powers of two, got -2.0", {"x_scale": [1, -2]}),
        (ValueError, "y_scale must hold powers of two, got 0.0", {"y_scale": [0]}),
        (ValueError, "must be finite", {"x_scale": [1, 2.0**1000], "x_shift": [0, 1e300]}),
        (ValueError, "num_threads must be between 1 and 4096, got 0", {"num_threads": 0}),
        (TypeError, "num_threads must be an integer", {"num_threads": "2"}),
        (ValueError, "isa must be one of .*scalar, got 'sse9'", {"isa": "sse9"}),
    ],
)
def test_a_state_refuses(error, message, arguments):
    with pytest.raises(error, match=message):
        GramState(**({"d": 2, "k": 1} | arguments))


def test_a_state_without_targets_takes_none():
    with pytest.raises(ValueError, match="y must be None, as the state has k = 0"):
        GramState(2).update(X, Y)


@pytest.mark.parametrize("folds", [2, [0, 5], -1])
def test_result_refuses_folds_that_there_are_not(folds):
    with pytest.raises(ValueError, match="folds must be"):
        GramState(2, folds=2).result(folds)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", 1, "format 2, got 1"),
        ("shape", [2.0, 1.0, 1.0], "integers"),
        ("shape", [3, 1, 1], r"arrays\['"),
        ("sums", np.zeros(3), r"arrays\['sums'\] must be float64 of shape"),
        ("rows", [-5], "must not be negative"),
        ("rows", [2**63 - B], r"must not be more than 2\*\*62"),
        ("rows", [B + 17], r"arrays\['pending'\] must be float64 of shape \(17, 4\)"),
        ("x_scale", [1, 3], "powers of two"),
    ],
)
def test_from_arrays_refuses_what_is_no_state(name, value, message):
    arrays = GramState(2, 1).update(X, Y).to_arrays()
    with pytest.raises(ValueError, match=message):
        GramState.from_arrays(arrays | {name: value})
    del arrays[name]
    with pytest.raises(ValueError, match=f"missing: {name}"):
        GramState.from_arrays(arrays)


def bound(d=2, k=1, folds=1, **changes):
    """The half of a state that is C++, which trusts the half in Python with nothing."""
    sizes = {
        "sums": (folds, 2, _kernels.gram_sums_size(d, k, folds)),
        "pending": (folds, B, d + k + 1),
        "rows": (folds,),
        "scale": (d + k,),
        "offset": (d + k,),
    }
    made = {
        name: np.zeros(size, np.int64 if name == "rows" else np.float64)
        for name, size in sizes.items()
    }
    return _kernels.GramArrays(d, k, folds, **(made | changes))


@pytest.mark.parametrize("name", ["sums", "pending", "rows", "scale", "offset"])
def test_the_binding_refuses_arrays_that_do_not_fit(name):
    bound()
    with pytest.raises(ValueError, match="do not fit its shape"):
        bound(**{name: np.zeros(1 + (name == "rows"), np.int64 if name == "rows" else None)})
    with pytest.raises(TypeError):
        bound(**{name: np.zeros(9, np.float32)})
    with pytest.raises(ValueError, match="rows must not be negative"):
        bound(rows=np.array([-1]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", np.zeros((5, 3))),
        ("x", np.zeros((10, 4))[::2, ::2]),
        ("y", np.zeros(4)),
        ("y", np.zeros(10)[::2]),
        ("y", None),
        ("sample_weight", np.zeros(6)),
        ("sample_weight", np.zeros(10)[::2]),
        ("fold", np.zeros(4, np.int64)),
    ],
)
def test_the_binding_refuses_rows_that_do_not_fit(name, value):
    rows = {"x": np.zeros((5, 2)), "y": np.zeros(5), "sample_weight": None, "fold": None}
    options = {"num_threads": 1, "isa": None}
    state = bound()
    state.update(**rows, **options)
    with pytest.raises(ValueError, match=name):
        state.update(**(rows | {name: value}), **options)
    with pytest.raises(ValueError, match="other"):
        state.merge(bound(3), **options)
    with pytest.raises(ValueError, match="fold"):
        state.sum([1], **options)
    assert state.sum([0], **options)[-1] == 5


def test_arrays_may_be_read_only_and_unaligned():
    x, y, _ = normal(2000, 6, 2)
    x.flags.writeable = y.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.float64, offset=1).reshape(x.shape)
    assert not unaligned.flags.aligned
    assert equal(gram(unaligned, y), gram(x, y))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("d", [1, 3, 7, 9, 15, 65])
@pytest.mark.parametrize("rest", [0, 3])
def test_nothing_beyond_the_arrays_is_read(isa, dtype, d, rest):
    # The arrays end where a page that may not be read begins, with a block or with rows behind one.
    mmap = pytest.importorskip("mmap")
    ctypes = pytest.importorskip("ctypes")
    n, page = 2 * B + rest, mmap.PAGESIZE
    x, y, _ = whole(n, d, 1)
    size = n * d * np.dtype(dtype).itemsize
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    guard = np.frombuffer(memory, np.uint8)
    address = guard.ctypes.data + pages * page
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), 0) == 0
    try:
        edge = guard[pages * page - size : pages * page].view(dtype).reshape(n, d)
        edge[:] = x
        found = gram(edge, y.astype(np.float32), isa=isa)
        assert equal(found, truth(x, y, np.ones(n, int)))
    finally:
        libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), 3)


def test_a_state_at_work_refuses_another_call():
    x = np.ones((400_000, 100))
    state = GramState(100, num_threads=1)
    begun = threading.Event()

    def work():
        begun.set()
        state.update(x)

    worker = threading.Thread(target=work)
    worker.start()
    begun.wait()
    refused = set()
    while worker.is_alive():
        try:
            state.result()
        except RuntimeError as error:
            refused.add(str(error))
    worker.join()
    assert refused == {"this GramState is at work in another call"}
    assert state.rows == 400_000
    assert state.result().xx[0, 0] == 400_000


@pytest.mark.parametrize("d", [40, 300])
def test_signals_leave_the_first_rows_of_the_batch(d):
    # The scalar kernels, as they take long enough.
    run(f"""
    import signal
    import numpy as np
    from linreg_ops.kernels import GramState

    class Alarm(Exception):
        pass

    def alarm(*_):
        raise Alarm

    signal.signal(signal.SIGALRM, alarm)
    x = np.random.default_rng(0).standard_normal((48_000_000 // {d}, {d}), np.float32)
    state = GramState({d}, x_shift=x[0], num_threads=1, isa="scalar")
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        state.update(x)
    except Alarm:
        pass
    taken = state.rows
    assert 0 < taken < len(x), taken
    state.update(x[taken:])
    whole = GramState({d}, x_shift=x[0], isa="scalar").update(x)
    for a, b in zip(state.result(), whole.result()):
        assert np.array_equal(a, b)
    """)


def test_memory_that_there_is_not_is_a_memory_error():
    with pytest.raises(MemoryError):
        GramState(2**22)


if __name__ == "__main__":
    found = {"x".join(map(str, shape)): hash_of(None, shape) for shape in BIT_SHAPES}
    HASHES.write_text(json.dumps(found, indent=1) + "\n")
