"""Instrument files as read, and the location of faults in them."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.night.headervalues import text

Keys = tuple[Any, ...]
"""Place of a value: keys of mappings and indices of lists."""


class InstrumentError(ValueError):
    """An unusable instrument file; the message names file, line and key."""

    @property
    def lines(self) -> list[str]:
        """The message, one line per fault."""
        return str(self).split("\n")


@dataclass(frozen=True)
class Source:
    """An instrument file as read.

    Parameters
    ----------
    path : Path
        Path of the file.
    data : bytes
        Its bytes.
    content : dict
        Its content.
    """

    path: Path
    data: bytes
    content: Any


@dataclass(frozen=True)
class Fault:
    """A fault in an instrument file.

    Parameters
    ----------
    keys : tuple
        Its place.
    text : str
        The fault, and a correction.
    lacks : bool
        Whether something is missing at this place; otherwise the value is wrong.
    """

    keys: Keys
    text: str
    lacks: bool = False


def read_source(path: Path) -> Source:
    """Return the content of a YAML file.

    Raises
    ------
    InstrumentError
        The file is not YAML, or has a key twice.
    """
    import yaml

    data = path.read_bytes()
    try:
        content = yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise InstrumentError(f"{path}{line}: this is not YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InstrumentError(f"{path}: this is not YAML: {error}") from error
    return Source(path, data, content)


def message_of(faults: Sequence[Fault], sources: Sequence[Source]) -> str:
    """Return the faults, one per line, in the order of the file."""
    found = []
    for fault in faults:
        path, line = place_of(fault.keys, sources)
        where = f"{path}:{line}" if line else str(path)
        key = text(".".join(str(part) for part in fault.keys)) or "the file"
        words = " ".join(fault.text.split())
        found.append((path != sources[0].path, line, f"{where}: {key}: {words}"))
    lines = list(dict.fromkeys(line for *_, line in sorted(found)))
    if len(lines) == 1:
        return lines[0]
    return "\n  ".join([f"{sources[0].path} has {len(lines)} faults:", *lines])


def fault_message(sources: Sequence[Source], keys: Keys, text: str) -> str:
    """Return the message about one fault, with file, line and key."""
    return message_of([Fault(keys, text)], sources)


def place_of(keys: Keys, sources: Sequence[Source]) -> tuple[Path, int]:
    """Return file and line of a key: in the first file that has it, or else of its parent."""
    best = (-1, sources[0].path, 0)
    for source in sources:
        depth, line = _line(_nodes(source.data), keys)
        if depth > best[0]:
            best = (depth, source.path, line)
    return best[1], best[2]


@functools.lru_cache(maxsize=16)
def _nodes(data: bytes) -> Any:
    import yaml

    return yaml.compose(data, Loader=yaml.SafeLoader)


def _line(node: Any, keys: Keys) -> tuple[int, int]:
    """Return how many of the keys a document has, and the line where the match ends."""
    import yaml

    line, depth = 0, 0
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pairs = {one.value: (one, value) for one, value in node.value}
            if str(key) not in pairs:
                break
            place, node = pairs[str(key)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            if key >= len(node.value):
                break
            place = node = node.value[key]
        else:
            break
        line, depth = place.start_mark.line + 1, depth + 1
    return depth, line


def repeated_keys(source: Source) -> Iterator[Fault]:
    """Yield keys that a mapping has twice, of which YAML would silently use the last."""
    import yaml

    def walk(node: Any, keys: Keys) -> Iterator[Fault]:
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.value in seen:
                    yield Fault(
                        (*keys, key.value), f"is there twice, in lines {seen[key.value]} and {line}"
                    )
                seen[key.value] = line
                yield from walk(value, (*keys, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for place, value in enumerate(node.value):
                yield from walk(value, (*keys, place))

    yield from walk(_nodes(source.data), ())
