"""The command line: fit and predict the user's own tables, the demo, and what was built."""

import sys
from typing import Annotated, Any, NoReturn

try:
    import rich  # noqa: F401
    import typer
    import typer.core
except ImportError as error:
    raise ImportError(
        f"the command line needs {error.name}, which is not installed. Install it with: "
        "pip install typer rich"
    ) from error

from . import bench, demo, fit, info, predict, summary
from .terminal import console, refuse

# click's ClickException, of which newer versions of typer carry a copy of their own.
_UsageError: Any = typer.BadParameter.__mro__[2]


class _Commands(typer.core.TyperGroup):
    """Says what is wrong with an option as all other errors are said, and ends with exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        try:
            sys.exit(super().main(*args, **{**kwargs, "standalone_mode": False}))
        except _UsageError as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "linreg-ops"
            # typer 0.29 shows where pydantic got a message from.
            message = error.format_message().replace("Value error, ", "")
            end = "" if message.endswith((".", "?")) else "."
            refuse(f"{message}{end} See {command} --help.")


app = typer.Typer(
    cls=_Commands,
    help="Least squares in TensorFlow at the speed of memory.",
    pretty_exceptions_enable=False,
    # Boxes leave too little room for the words in a narrow terminal.
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "terminal_width": max(min(console.width, 100), 30),
    },
)
app.command()(fit.fit)
app.command()(predict.predict)
app.command()(summary.summary)
app.command()(demo.demo)
app.command()(bench.bench)
app.command()(info.info)


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        console.print(f"linreg-ops {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
