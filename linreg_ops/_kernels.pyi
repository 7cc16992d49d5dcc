from typing import Any

from numpy.typing import NDArray

def loss_and_grad(
    x: NDArray[Any],
    w: NDArray[Any],
    y: NDArray[Any] | None = None,
    *,
    intercept: bool = False,
    sample_weight: NDArray[Any] | None = None,
    loss_per_target: bool = False,
    num_threads: int | None = None,
    isa: str | None = None,
) -> tuple[Any, NDArray[Any]]: ...
def gradient_descent(
    x: NDArray[Any],
    w: NDArray[Any],
    y: NDArray[Any] | None,
    learning_rate: float | NDArray[Any],
    num_steps: int,
    *,
    intercept: bool = False,
    sample_weight: NDArray[Any] | None = None,
    momentum: float = 0.0,
    num_threads: int | None = None,
    isa: str | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def active_isa() -> str: ...
def isas() -> dict[str, bool]: ...
def plan(
    n: int,
    d: int,
    k: int,
    dtype: Any,
    w_dtype: Any,
    intercept: bool,
    descent: bool,
    num_threads: int | None,
    isa: str | None,
) -> dict[str, Any]: ...
def routes() -> dict[str, tuple[str, str]]: ...
def build_config() -> dict[str, Any]: ...

GRAM_BLOCK_ROWS: int

def gram_sums_size(d: int, k: int, folds: int) -> int: ...

class GramArrays:
    """The arrays of a linreg_ops._gram.GramState."""

    def __init__(
        self,
        d: int,
        k: int,
        folds: int,
        sums: NDArray[Any],
        pending: NDArray[Any],
        rows: NDArray[Any],
        scale: NDArray[Any],
        offset: NDArray[Any],
    ) -> None: ...
    def update(
        self,
        x: NDArray[Any],
        y: NDArray[Any] | None,
        sample_weight: NDArray[Any] | None,
        fold: NDArray[Any] | None,
        num_threads: int | None,
        isa: str | None,
    ) -> None: ...
    def merge(self, other: GramArrays, num_threads: int | None, isa: str | None) -> None: ...
    def sum(
        self, folds: list[int], num_threads: int | None, isa: str | None
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], float]: ...

class _Cuda:
    """The submodule of a build with CUDA; absent from others."""

    class DeviceArray:
        @property
        def shape(self) -> tuple[int, ...]: ...
        @property
        def dtype(self) -> str: ...
        def to_bytes(self, stream: int = 0) -> bytes: ...
        def __dlpack_device__(self) -> tuple[int, int]: ...
        def __dlpack__(self, *, stream: int | None = None, **kwargs: Any) -> Any: ...

    def from_bytes(
        self, bytes: Any, dtype: str, shape: tuple[int, ...], stream: int = 0
    ) -> DeviceArray: ...
    def device_properties(self) -> dict[str, Any]: ...
    def plan(self, n: int, d: int, k: int = 1, dtype: str = "float32") -> dict[str, Any]: ...
    def routes(self) -> list[tuple[str, int, float]]: ...
    def loss_and_grad(
        self,
        x: Any,
        w: Any,
        y: Any = None,
        *,
        intercept: bool = False,
        sample_weight: Any = None,
        loss_per_target: bool = False,
        stream: int = 0,
        keep_inputs: bool = True,
        bulk_copies: bool = True,
    ) -> tuple[DeviceArray, DeviceArray]: ...
    def gradient_descent(
        self,
        x: Any,
        w: Any,
        y: Any,
        learning_rate: Any,
        num_steps: int,
        *,
        intercept: bool = False,
        sample_weight: Any = None,
        momentum: float = 0.0,
        stream: int = 0,
        keep_inputs: bool = True,
        bulk_copies: bool = True,
        cooperative_launch: bool = True,
    ) -> tuple[DeviceArray, DeviceArray]: ...

cuda: _Cuda
