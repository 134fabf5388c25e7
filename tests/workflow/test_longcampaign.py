"""Six nights, simulated and reduced, against their truth: as python tests/campaign.py."""

import campaign
import pytest


@pytest.mark.slow
def test_what_was_put_into_six_nights_comes_out(tmp_path):
    place, names = campaign.simulate_campaign(tmp_path / "campaign")
    campaign.reduce(place)
    campaign.check(place, names)
    page = (place.products / "campaign.html").read_text(encoding="utf-8")
    assert len(page) < 3e6 and all(
        f'href="{night}/night.html"' in page for night in campaign.NIGHTS
    )
