"""What the key ``template`` names for each stack."""

from collections.abc import Mapping
from typing import Any

OWN = "own"
"""Value of `template`: an earlier coadd of this run."""

SURVEYS = ("ps1", "legacy", "skymapper")
"""Values of `template`: sky surveys, as `lib.reference.imagesurveys.IMAGE_SURVEYS` has them."""


def wanted_template(template: Any, stack: str) -> str:
    """Return what is to be the template of a stack: own, a path, or nothing.

    Parameters
    ----------
    template : str, dict or None
        Config `template`; of a dict the entry of the stack counts, else that of its filter, of its
        target, or `default`.
    stack : str
        ``<target>.<filter>``, with a mark where it is not that of a night.

    Returns
    -------
    str
        With the fields of paths filled in.
    """
    target, filter_name = stack.split(".")[:2]
    if isinstance(template, Mapping):
        for key in (f"{target}.{filter_name}", filter_name, target, "default"):
            if template.get(key):
                template = template[key]
                break
        else:
            return ""
    text = str(template or "")
    return text.replace("{target}", target).replace("{filter}", filter_name)
