"""Files of all nights of a run, and of products over several nights or parts of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from lib.night.campaign import Campaign
from lib.night.moving import middle, track
from lib.night.plan import target_of

from .nightfiles import NightFiles


def campaign_files(campaign: Campaign, config: Mapping[str, Any]) -> NightFiles:
    """Return the files of a night, through which those of all others are reached.

    Parameters
    ----------
    campaign : lib.night.campaign.Campaign
        All nights of the run.
    config : dict
        Checked by `lib.engine.config.check_config`.
    """
    nights = {
        folder: NightFiles(night.log, night.plan, config, folder)
        for folder, night in campaign.nights.items()
    }
    one = nights.get("") or next(iter(nights.values()))
    over = FilesOverNights(one.night, one.plan, config)
    over.campaign = campaign
    for files in (*nights.values(), over):
        files.nights = nights
        files.over_nights = over
        files.several = campaign.several
        files.contents = over.contents
    for folder, files in nights.items():
        files.key = campaign.keys.get(folder, "")
        files.settled = folder in campaign.settled
    return one


class FilesOverNights(NightFiles):
    """Files of products over several nights and of parts of nights; they lie in `imdir` itself.

    A stack over nights waits for the coadds of the nights from which it has frames. The frames
    themselves are params, because those of a settled night are no rule's output.
    """

    campaign: Campaign

    def at(self, wildcards: Any) -> NightFiles:
        """Return these files."""
        return self

    def _frames_of(self, stack, rule):
        return []

    @property
    def products_over_nights(self) -> list[str]:
        """Paths of the final products over all nights."""
        names = [f"coadd{stack}.fits" for stack in self.campaign.slices]
        tables = [*self.campaign.tables, *self.campaign.light_curves]
        names += [*tables, *self.exported(self.campaign.slices, tables)]
        names += [f"diff{stack}.fits" for stack in self.campaign.compared]
        return [f"{self.top}/{name}" for name in names]

    def solved(self, frames: Sequence[str]) -> list[str]:
        """Return the paths of solved frames of any nights."""
        nights = self.campaign.night_of
        return [self.nights[nights[frame].folder].before("stack", frame) for frame in frames]

    def nights_of_stack(self, wildcards: Any) -> list[str]:
        """Return the coadds of the nights that a stack has frames from, or that define its grid."""
        found: dict[str, None] = {}
        for frame in (*self.campaign.slices[wildcards.stack], *self._frames_of_grid(wildcards)):
            night = self.campaign.night_of[frame]
            name = f"coadd{night.plan.stack_of[frame]}.fits"
            found[f"{self.nights[night.folder].imdir}/{name}"] = None
        return list(found)

    def _frames_of_grid(self, wildcards):
        """The frames that define the grid of a stack, if these are not only its own.

        What follows a moving object has a grid of its own.
        """
        of_target = self.config["stack"]["grid"] == "target"
        if not of_target or wildcards.stack in self.campaign.moving:
            return []
        stacks, target = self.campaign.log.stacks, target_of(wildcards.stack)
        return [frame for one in stacks if target_of(one) == target for frame in stacks[one]]

    def reference(self, wildcards: Any) -> str:
        """Return the reference table of a target, from its first night."""
        target = target_of(wildcards.stack)
        return f"{self.first_night_of(target).imdir}/refcat/{target}.ecsv"

    def grid_frames(self, wildcards: Any) -> list[str]:
        """Return no inputs: the frames that define the grid are params."""
        return []

    def stack_flats(self, wildcards: Any) -> list[str]:
        """Return no inputs: the flats of the frames are params."""
        return []

    def stack_given(self, wildcards: Any) -> SimpleNamespace:
        """Return frames, frames of the grid, flats, and the user's catalogue of a stack."""
        frames = self.campaign.slices[wildcards.stack]
        flats: dict[str, None] = {}
        for frame in frames:
            night = self.nights[self.campaign.night_of[frame].folder]
            for ready in (True, False):
                flats |= dict.fromkeys(night.masters_of(frame, ("flat",), ready).values())
        return SimpleNamespace(
            flats=list(flats), customcat=self.config["customcat"] or None,
            frames=self.solved(frames), grid=self.solved(self._frames_of_grid(wildcards)),
            moving=self.campaign.moving.get(wildcards.stack),
        )  # fmt: skip

    def stack_contents(self, wildcards: Any) -> list[str]:
        """Return the names of the frames, and identifiers of the user's catalogue and ephemeris."""
        frames = self.campaign.slices[wildcards.stack]
        customcat = self.config["customcat"]
        moving = self.campaign.moving.get(wildcards.stack)
        facts = self.campaign.log.frames
        places = track(moving, [middle(facts[one]) for one in frames]) if moving else []
        return [*frames, *([self.contents.sum_of(customcat)] if customcat else []), *places]

    def stacks_behind(self, wildcards: Any) -> list[tuple[str, str, Sequence[str]]]:
        """Return folder, name and frames of the stacks of a mark, or of a light curve.

        A light curve uses the stacks over all nights where these are made, otherwise those of each
        night.
        """
        stacks = self.campaign.targets.get(wildcards.target, {})
        mark = getattr(wildcards, "mark", ".all")[1:]
        moving = [] if hasattr(wildcards, "mark") else self.following(wildcards.target)
        if mark in stacks:
            whole = [(self.top, stack, self.campaign.slices[stack]) for stack in stacks[mark]]
            return [*whole, *moving]
        return [
            *(
                found
                for night in self.nights.values()
                if wildcards.target in night.plan.targets
                for found in night.stacks_behind(wildcards)
            ),
            *moving,
        ]

    def following(self, target: str) -> list[tuple[str, str, Sequence[str]]]:
        """Return folder, name and frames of the stacks of a target that follow moving objects."""
        return [
            (self.top, stack, self.campaign.slices[stack])
            for stack in self.campaign.moving
            if target_of(stack) == target
        ]

    def site(self, wildcards: Any) -> list[float]:
        """Return the site of the telescope, from the first night of the target."""
        night = self.first_night_of(wildcards.target)
        frames = [night.night.frames[one] for one in night.plan.frames_of(wildcards.target)]
        return next((list(one.site) for one in frames if one.site), [])

    def _stack_frames(self, stack):
        return self.campaign.slices[stack]

    def differences(self, wildcards: Any) -> list[str]:
        """Return the difference images of all nights of a target, and over and within nights."""
        target = wildcards.target
        return [
            *(
                path
                for night in self.nights.values()
                if target in night.plan.targets
                for path in night.own_differences(target)
            ),
            *self.differences_of_parts(target),
        ]

    def stacks_beside(self, wildcards: Any) -> dict[str, str]:
        """Return the stacks of a target that its light curve is not measured by, and their coadds.

        Not those of one frame, which has a row anyway.
        """
        target = wildcards.target
        curve = self if self.several else self.nights[""]
        used = {stack for _, stack, _ in curve.stacks_behind(SimpleNamespace(target=target))}
        found = {
            stack: f"{self.top}/coadd{stack}.fits"
            for stack in self.campaign.parts
            if target_of(stack) == target and stack not in used
        }
        if self.several and used & set(self.campaign.slices):
            for night in self.campaign.nights_of_targets[target]:
                place = self.nights[night.folder].imdir
                for stack in night.plan.targets[target]:
                    found[f"{stack}.n{night.name}"] = f"{place}/coadd{stack}.fits"
        return found

    def differences_of_parts(self, target: str) -> list[str]:
        """Return the difference images of a target over nights and of parts of nights."""
        parts = [stack for stack in self.campaign.compared if target_of(stack) == target]
        return [f"{self.top}/diff{stack}.fits" for stack in parts]

    def _survey_image(self, stack):
        """That of the night of its first frame: the field is the same."""
        frame = self.campaign.slices[stack][0]
        night = self.campaign.night_of[frame]
        return self.nights[night.folder]._survey_image(night.plan.stack_of[frame])

    def frames_of_target(self, wildcards: Any) -> list[str]:
        """Return no inputs: the frames are params."""
        return []
