"""What speeds a plan or a run up changes nothing else, and is left out where Snakemake differs."""

import gc
from types import SimpleNamespace

import pytest
from snakemake.sourcecache import LocalSourceFile, SourceCache

from lib.engine import patches


@pytest.fixture
def collector():
    """Give the garbage collector back as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_scripts_are_read_once(tmp_path):
    script = tmp_path / "prepare.py"
    script.write_text("print('é')\n", encoding="utf-8")
    source, again = LocalSourceFile(str(script)), LocalSourceFile(str(script))
    absent = LocalSourceFile(str(tmp_path / "absent.py"))
    plain = SourceCache(tmp_path / "plain", tmp_path / "plain")
    cache = SourceCache(tmp_path / "cache", tmp_path / "cache")
    opened = []
    plain_open = cache.open

    def counted(source_file, mode="r"):
        opened.append(source_file)
        return plain_open(source_file, mode)

    cache.open = counted
    patches.cache_source_files(SimpleNamespace(sourcecache=cache))
    with plain.open(source) as expected:
        text = expected.read()
    for one in (source, again):
        # A file of its own each time, at its beginning.
        with cache.open(one) as file:
            assert file.read() == text
        assert cache.exists(one) and not cache.exists(absent)
        assert cache.get_path(one).endswith("prepare.py")
    assert len(opened) == 1
    with plain.open(source, "rb") as expected, cache.open(source, "rb") as file:
        assert file.read() == expected.read()
    with pytest.raises(OSError):
        cache.open(absent)


class Cache:
    """As much of Snakemake's source cache as is replaced."""

    def open(self, source_file, mode="r"):
        raise NotImplementedError

    def exists(self, source_file):
        return True

    def get_path(self, source_file):
        return "path"


def renamed_parameter(self, file):
    return file


@pytest.mark.parametrize("name", ["open", "exists", "get_path"])
@pytest.mark.parametrize("changed", [None, renamed_parameter])
def test_another_source_cache_is_left_alone(name, changed):
    cache = type("Changed", (Cache,), {name: changed})()
    with pytest.raises(patches.Unsupported):
        patches.cache_source_files(SimpleNamespace(sourcecache=cache))
    assert vars(cache) == {}


def test_source_that_cannot_be_looked_up_is_read_each_time():
    cache = Cache()
    patches.cache_source_files(SimpleNamespace(sourcecache=cache))
    assert cache.exists([]) and cache.get_path([]) == "path"
    with pytest.raises(NotImplementedError):
        cache.open([])


@pytest.mark.parametrize(
    "workflow", [SimpleNamespace(), SimpleNamespace(sourcecache=None), object()]
)
def test_workflow_without_a_source_cache(workflow):
    with pytest.raises(patches.Unsupported):
        patches.cache_source_files(workflow)


def test_loaded_objects_are_left_alone_by_the_collector(collector):
    patches.tune_garbage_collector()
    assert gc.isenabled() and gc.get_threshold() == patches.GC_THRESHOLDS
    assert gc.get_freeze_count() > 0


def test_this_snakemake_has_what_is_replaced(tmp_path):
    """Where not, plans and runs would silently be slow."""
    cache = SourceCache(tmp_path / "cache", tmp_path / "cache")
    patches.cache_source_files(SimpleNamespace(sourcecache=cache))
