"""The command line: fit and predict the user's own tables, the demo, and what was built."""

from typing import Annotated

try:
    import rich  # noqa: F401
    import typer
except ImportError as error:
    raise ImportError(
        f"the command line needs {error.name}, which is not installed. Install it with: "
        "pip install typer rich"
    ) from error

from . import demo, fit, info, predict
from .terminal import console

app = typer.Typer(
    help="Least squares in TensorFlow at the speed of memory.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(fit.fit)
app.command()(predict.predict)
app.command()(demo.demo)
app.command()(info.info)


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        console.print(f"linreg-ops {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it and exit.")
    ] = False,
) -> None:
    pass
