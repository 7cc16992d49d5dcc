"""`python -m linreg_ops` and the `linreg-ops` command."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


class Interrupted(BaseException):
    """Ctrl-C. Not a KeyboardInterrupt, of which each version of typer makes something else."""


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted


def main() -> None:
    """Runs the command line, or says what it lacks; exit code 130 after Ctrl-C, as shells have."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        try:
            from .cli import app
            from .cli.terminal import replace_what_the_terminal_lacks
        except ImportError as error:
            sys.exit(str(error))
        replace_what_the_terminal_lacks()
        app(prog_name="linreg-ops")
    except Interrupted:
        sys.stdout.flush()
        print("Interrupted.", file=sys.stderr, flush=True)
        os._exit(130)  # whoever pressed Ctrl-C need not wait until TensorFlow has been taken down


if __name__ == "__main__":
    main()
