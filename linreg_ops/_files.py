"""Files that are written whole, or not at all."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the path of a file to write, which takes `path`'s place at the end of the block.

    Until then, and after an exception, Ctrl-C, a full disk or the machine's end meanwhile, what
    `path` names is what it was. A link stays one, and a pipe or a device is written to as it is.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        yield target
        return
    # A suffix of its own, as the format of a picture goes by it; a name that is not too long.
    own = f".{os.getpid()}-{threading.get_ident()}{target.suffix}"
    temporary = target.with_name(own)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
