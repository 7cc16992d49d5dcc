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


def main() -> NoReturn:
    """Runs the command line, or says what it lacks; exit code 130 after Ctrl-C, as shells have.

    Ends without taking the process down piece by piece: Arrow's and TensorFlow's threads may abort
    it then, after all is done ("terminate called without an active exception"), and it takes time.
    """
    signal.signal(signal.SIGINT, _interrupt)
    code: object = 0
    try:
        _run()
    except SystemExit as end:
        code = end.code or 0
    except Interrupted:
        code = 130
        print("Interrupted.", file=sys.stderr)
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # whoever read it has gone
            code = code or 1
    os._exit(code)


def _run() -> None:
    try:
        from .cli import app
        from .cli.terminal import replace_what_the_terminal_lacks
    except ImportError as error:
        sys.exit(str(error))
    replace_what_the_terminal_lacks()
    app(prog_name="linreg-ops")


if __name__ == "__main__":
    main()
