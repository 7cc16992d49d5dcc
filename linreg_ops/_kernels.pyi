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
def build_config() -> dict[str, Any]: ...
