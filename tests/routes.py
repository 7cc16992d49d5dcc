"""A few shapes for every route of the CPU kernels: small ones that end in the middle of tiles."""

from linreg_ops import kernels

# (n, d, k, descent); what W, the lanes of a vector, decides has a shape on either side.
SHAPES = {
    "plain": [(70, 5, 1, False), (130, 17, 3, False), (129, 33, 9, False)],
    "lane_per_row_packed": [(1000, 1, 1, True), (513, 5, 1, True), (37, 8, 1, True)],
    "lane_per_row": [(1000, d, 1, False) for d in range(1, 9)] + [(613, 8, 1, True)],
    "lane_per_residual": [
        (300, 0, 3, False),
        (300, 1, 2, False),
        (517, 7, 5, False),
        (261, 8, 8, False),
    ],
    "lane_per_column": [
        (300, 0, 1, False),
        (1003, 17, 1, False),
        (517, 64, 1, False),
        (301, 250, 1, False),
        (131, 300, 1, False),
        (70, 1031, 1, False),
        (9, 5003, 1, False),
        (50, 40, 1, True),
    ],
    "few_targets": [
        (n, d, k, False)
        for k in range(2, 9)
        for n, d in [(301, 9), (133, 40), (67, 385), (19, 1029), (7, 9001)]
    ],
    # The last: a slot that ends with rows whose sums are still in the compute type.
    "gemm_slots": [(2100, 15, 9, False), (2501, 33, 45, False), (3020, 500, 9, False)],
    # The last two: two rounds; and three, of a copied X.
    "gemm_rounds": [
        (130, 15, 9, False),
        (20, 70, 100, False),
        (300, 128, 40, False),
        (1500, 15, 9, False),
        (1100, 1536, 9, False),
    ],
}


def takes(isa, route, dtype, w_dtype):
    """The shapes of a route that it takes for these types: W is 8 for float64, 16 for others."""
    return [
        (n, d, k, descent)
        for n, d, k, descent in SHAPES[route]
        if kernels.plan(n, d, k, dtype, w_dtype=w_dtype, descent=descent, isa=isa).route == route
    ]
