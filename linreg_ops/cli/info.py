"""`linreg-ops info`: what was built, and what it uses here."""

from rich.table import Table

from .terminal import console, without_tensorflow_logs


def info() -> None:
    """Print what was built, and what it uses here."""
    with without_tensorflow_logs():
        from .._library import build_info
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in build_info().items():
        if isinstance(value, dict):
            value = ", ".join(name if on else f"{name} (not here)" for name, on in value.items())
        table.add_row(key, str(value))
    console.print(table)
