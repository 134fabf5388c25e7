"""What two reductions of the same night have in common: all but dates and paths."""

import hashlib

from astropy.io import fits

# The page and what is made for it tell when and where it was made.
OF_THE_RUN = {
    "night.html",
    "run.json",
    "page.json",
    ".nightlog.json",
    ".run",
    ".contents.jsonl",
    ".products.json",
}


def digest_of_fits(path):
    """Return a digest of pixels, tables and headers, without the dates in checksum comments."""
    digest = hashlib.sha256()
    with fits.open(path, memmap=False) as hdus:
        for hdu in hdus:
            for card in hdu.header.cards:
                if card.keyword in ("CHECKSUM", "DATE"):
                    continue  # of those comments, among others
                text = str(card.value) if card.keyword == "DATASUM" else str(card)
                digest.update(text.encode())
            if hdu.data is not None:
                digest.update(hdu.data.tobytes())
    return digest.hexdigest()


def products(directory):
    """Return {path below `directory`: digest} of frames, stacks, tables and solutions."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if not path.is_file() or path.name in OF_THE_RUN or name.startswith(("logs/", "qa/frames")):
            continue
        if path.suffix == ".fits":
            found[name] = digest_of_fits(path)
        elif path.suffix == ".ecsv" or name.startswith(("qa/stack/", "qa/astrometry/")):
            if path.suffix != ".png":
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(one, other):
    """Return the names of products that are not the same in two directories."""
    ours, theirs = products(one), products(other)
    assert ours, f"no products in {one}"
    return sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
