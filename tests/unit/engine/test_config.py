"""The configuration is checked, and a wrong one answered with what to write instead."""

from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from lib.core.settings import Settings
from lib.engine.config import ConfigError, check_config

CONFIG = Path(__file__).resolve().parents[3] / "config"
DEFAULTS = yaml.safe_load((CONFIG / "config.yaml").read_text())


def complaint(config, **kwargs):
    """Return the text of the error that `config` gives."""
    with pytest.raises(ConfigError) as caught:
        check_config(config, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_shipped_config_holds_the_defaults_of_the_settings():
    assert check_config(DEFAULTS) == DEFAULTS
    assert check_config({}) == DEFAULTS
    assert list(check_config({})) == list(DEFAULTS)


def test_every_shipped_key_has_a_comment():
    lines = (CONFIG / "config.yaml").read_text().splitlines()
    values = [line for line in lines if ":" in line and not line.startswith("#")]
    sections = {f"{key}:" for key, value in DEFAULTS.items() if isinstance(value, dict)}
    assert [line for line in values if "#" not in line and line not in sections] == []


def test_config_is_not_changed():
    config = {"nocrclean": "1", "flatten": {"low_response": "0.2"}}
    before = deepcopy(config)
    check_config(config)
    assert config == before


@pytest.mark.parametrize("value", [True, 1, "1", "true", "True", "yes", "on"])
def test_switch_on(value):
    assert check_config({"nocrclean": value})["nocrclean"] is True


@pytest.mark.parametrize("value", [False, 0, "0", "false", "False", "no", "off"])
def test_switch_off(value):
    assert check_config({"nocrclean": value})["nocrclean"] is False


def test_section_given_in_part_keeps_its_other_defaults():
    # Snakemake leaves everything within {...} on the command line as text.
    checked = check_config({"crclean": {"sigma": "6", "iterations": "2"}})["crclean"]
    assert checked == {**DEFAULTS["crclean"], "sigma": 6.0, "iterations": 2}
    assert isinstance(checked["iterations"], int)


@pytest.mark.parametrize(("value", "meant"), [("auto", "auto"), ("2.5", 2.5), (0, 0.0)])
def test_number_or_word(value, meant):
    assert check_config({"makesky": {"smooth": value}})["makesky"]["smooth"] == meant


@pytest.mark.parametrize(("value", "meant"), [("auto", "auto"), ("3", 3), (3, 3)])
def test_number_among_words(value, meant):
    assert check_config({"astrometry": {"degree": value}})["astrometry"]["degree"] == meant


def test_empty_section_is_the_default_one():
    assert check_config({"flatten": None})["flatten"] == DEFAULTS["flatten"]


def test_nothing_for_a_path_that_may_be_absent():
    checked = check_config({"masters": "", "customcat": None})
    assert checked["masters"] is None
    assert checked["customcat"] is None


@pytest.mark.parametrize("value", [["g", "r"], "g,r", "g r", "g, r"])
def test_list_of_filters(value):
    assert check_config({"customcatfilt": value})["customcatfilt"] == ["g", "r"]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"datdir": "raw"}, "config key 'datdir' is not known: did you mean 'datadir'?"),
        ({"NoCRclean": 1}, "config key 'NoCRclean' is not known: did you mean 'nocrclean'?"),
        (
            {"flatten": {"missing_flats": "unity"}},
            "config key 'flatten.missing_flats' is not known: did you mean 'flatten.missing_flat'?",
        ),
        (
            {"skies": {}, "makesky": {}},
            "config key 'skies' is not known: the keys are " + ", ".join(DEFAULTS) + ".",
        ),
        (
            {"dark": {"xyz": 1}},
            "config key 'dark.xyz' is not known: section 'dark' has clip, hot_sigma.",
        ),
        (
            {"objlim": 4},
            "config key 'objlim' is not known: it belongs to a section,"
            " write 'crclean={objlim: ...}'.",
        ),
        (
            {"stop": "crclean"},
            "config key 'stop' is not known: it is an option of snakemake here,"
            " write --until STEP instead.",
        ),
        (
            {"flatten": {"missing_flat": "drop"}},
            "config key 'flatten.missing_flat' is 'drop': write reject or unity.",
        ),
        (
            {"makesky": {"smooth": "some"}},
            "config key 'makesky.smooth' is 'some': write auto or a number of at least 0.",
        ),
        (
            {"makesky": {"smooth": -1}},
            "config key 'makesky.smooth' is -1.0: write auto or a number of at least 0.",
        ),
        ({"nocrclean": "maybe"}, "config key 'nocrclean' is 'maybe': write true or false."),
        ({"nocrclean": 2}, "config key 'nocrclean' is 2: write true or false."),
        (
            {"makesky": {"min_frames": "two"}},
            "config key 'makesky.min_frames' is 'two': write a whole number of at least 1.",
        ),
        (
            {"makesky": {"min_frames": 2.5}},
            "config key 'makesky.min_frames' is 2.5: write a whole number of at least 1.",
        ),
        (
            {"bias": {"clip": -1}},
            "config key 'bias.clip' is -1.0: write a number above 0.",
        ),
        (
            {"bias": {"clip": True}},
            "config key 'bias.clip' is True: write a number above 0.",
        ),
        (
            {"flat": {"amax": 1.7}},
            "config key 'flat.amax' is 1.7: write a number from 0 to 1.",
        ),
        (
            {"flat": {"amin": 0.9, "amax": 0.8}},
            "config key 'flat.amin' is 0.9: write a number below flat.amax, which is 0.8.",
        ),
        (
            {"crclean": {"sigma": "nan"}},
            "config key 'crclean.sigma' is nan: write a number above 0.",
        ),
        (
            # Snakemake reads name=20220128 as a number; 20220128_1 would lose its underscore.
            {"datadir": 20220128},
            "config key 'datadir' is 20220128: write the path of the directory of raw frames,"
            " such as ./20220128.",
        ),
        (
            {"imdir": None},
            "config key 'imdir' is empty: write the path of a directory for the results,"
            " such as ./imredux.",
        ),
        (
            {"refcat": ""},
            "config key 'refcat' is empty: write online, offline, none or the path of a table,"
            " such as ./reference.ecsv.",
        ),
        (
            {"customcatfilt": ["g", "clear"]},
            "config key 'customcatfilt' is ['g', 'clear']: write a list of u, g, r, i, z, y, B, V,"
            " R, I, J, H, K, such as [g, r].",
        ),
        (
            {"astrometry": {"degree": "8"}},
            "config key 'astrometry.degree' is '8': write auto, 1, 2, 3, 4, 5, 6 or 7.",
        ),
        (
            {"astrometry": {"search_radius": 0}},
            "config key 'astrometry.search_radius' is 0.0: write a number above 0, or nothing.",
        ),
        (
            {"flatten": "unity"},
            "config key 'flatten' is 'unity': write a section,"
            " such as 'flatten={missing_flat: reject}'.",
        ),
    ],
)
def test_complaint_says_what_to_write(config, text):
    assert complaint(config) == text


def test_instrument_must_be_described():
    names = ["ratir", "lmi", "generic"]
    assert check_config({"instrument": "lmi"}, names)["instrument"] == "lmi"
    assert check_config({}, names)["instrument"] == "auto"
    assert complaint({"instrument": "rattir"}, instruments=names) == (
        "config key 'instrument' is 'rattir', which is not known: did you mean ratir?"
    )
    assert complaint({"instrument": "hst"}, instruments=names) == (
        "config key 'instrument' is 'hst', which is not known: write auto, generic, lmi or ratir, "
        "or the path of a .yaml file."
    )
    assert check_config({"instrument": "./my.yaml"}, names)["instrument"] == "./my.yaml"


KEYS = st.sampled_from(list(DEFAULTS)) | st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)


@settings(derandomize=True, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_config_is_completed_or_refused_in_one_sentence(config):
    try:
        checked = check_config(config)
    except ConfigError as error:
        assert str(error).startswith("config key '")
    else:
        assert check_config(checked) == checked
        TypeAdapter(Settings).validate_python(checked)


def test_default_has_the_type_of_the_same_value_in_a_file():
    assert isinstance(check_config({})["stack"]["max_scatter"], float)
    assert isinstance(check_config({"stack": {"max_offset": 2}})["stack"]["max_offset"], float)
