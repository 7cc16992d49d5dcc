"""`python -m linreg_ops` and the `linreg-ops` command."""

import sys


def main() -> None:
    """Runs the command line, or says what it lacks."""
    try:
        from .cli import app
    except ImportError as error:
        sys.exit(str(error))
    app(prog_name="linreg-ops")


if __name__ == "__main__":
    main()
