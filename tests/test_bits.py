"""The bits of results, a hash for each route and pair of types: to change one is a decision.

`python tests/test_bits.py` writes data/bits.json anew; the commit that does so says why.
"""

import hashlib
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import routes

from linreg_ops import kernels

FILE = Path(__file__).parent / "data" / "bits.json"
BFLOAT16 = ml_dtypes.bfloat16
TYPES = [
    (np.float32, np.float32),
    (np.float64, np.float64),
    (np.float16, np.float16),
    (np.float16, np.float32),
    (BFLOAT16, BFLOAT16),
    (BFLOAT16, np.float32),
]


def hashes(isa):
    """{"route x_type w_type": hash of losses and gradients} of one instruction set."""
    result = {}
    for route in routes.SHAPES:
        for x_type, w_type in TYPES:
            digest = hashlib.blake2b(digest_size=8)
            shapes = routes.takes(isa, route, x_type, w_type)
            for shape in shapes:
                for output in run(isa, x_type, w_type, *shape):
                    digest.update(np.asarray(output).tobytes())
            if shapes:
                key = f"{route} {np.dtype(x_type).name} {np.dtype(w_type).name}"
                result[key] = digest.hexdigest()
    return result


def run(isa, x_type, w_type, n, d, k, descent):
    rng = np.random.default_rng(n * d + k)

    def values(*shape):  # exact in every type, with sums that are not
        return (rng.integers(-127, 128, shape) / 64).astype(w_type)

    x, w, y = values(n, d).astype(x_type), values(d, k) / w_type(8), values(n, k)
    s = np.abs(values(n))
    if descent:
        return kernels.gradient_descent(x, w, y, 2.0**-12, 3, sample_weight=s, isa=isa)
    return kernels.loss_and_grad(x, w, y, sample_weight=s, loss_per_target=True, isa=isa)


@pytest.mark.parametrize("isa", [isa for isa, supported in kernels.isas().items() if supported])
def test_bits_are_those_on_record(isa):
    found = hashes(isa)
    recorded = json.loads(FILE.read_text())
    assert found == {key: recorded[key] for key in found}


def test_every_route_and_pair_of_types_is_on_record():
    keys = json.loads(FILE.read_text())
    assert {key.split()[0] for key in keys} == set(kernels.routes())
    assert len(keys) == (len(kernels.routes()) - 1) * len(TYPES) + 2  # packed: of two types


if __name__ == "__main__":
    recorded = {}
    for name, supported in kernels.isas().items():
        if supported:
            recorded |= hashes(name)
    FILE.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
