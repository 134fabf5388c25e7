"""Loops over pixels, compiled by numba: where an array operation a step would pass all pixels
through memory a dozen times."""

from collections.abc import Callable
from typing import Any

from lib.core.files import neutral_directory

with neutral_directory():
    from numba import njit
    from numba.core import config

# Looked for again whenever a function is compiled, in whatever directory that is.
config._config_fname = "/nonexistent/numba_config.yaml"


def compiled(signature: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that compiles a function for one signature, and keeps the result.

    Parameters
    ----------
    signature : str
    **options
        Options of `numba.njit`.
    """
    # To divide by zero is no error: to ask each time would keep the processor from vectors.
    options |= {"nogil": True, "error_model": "numpy"}

    def compile_it(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return njit(signature, cache=True, **options)(function)
        except RuntimeError:  # no directory to keep it in can be written
            return njit(signature, **options)(function)

    return compile_it
