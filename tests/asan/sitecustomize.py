"""On PYTHONPATH for tests under AddressSanitizer, whose shadow takes terabytes of address space.

A limit on the address space would end the process at once; ASAN_OPTIONS has one for an allocation.
"""

import resource

_setrlimit = resource.setrlimit


def setrlimit(what, limits):
    if what != resource.RLIMIT_AS:
        _setrlimit(what, limits)


resource.setrlimit = setrlimit
