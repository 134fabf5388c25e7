"""Measure what each step costs, against other ways to do the same, and write it into the docs.

    make bench        (or: python benchmarks/bench.py [--quick])

Each measurement runs in a process of its own on one core. CPU seconds (user + system) are given:
they depend less than the time on the clock on what else the machine does. Ratios within one run
are what counts.
"""

import argparse
import contextlib
import ctypes
import json
import multiprocessing
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from lib.core.pipeline import PIPELINE  # noqa: E402
from lib.engine import worker, workerprocess  # noqa: E402

os.environ |= dict.fromkeys(worker.THREAD_VARIABLES, "1")
if __name__ == "__main__" and "GLIBC_TUNABLES" not in os.environ:
    # All that is measured takes memory as jobs of the warm process do; it is read at the start.
    os.environ["GLIBC_TUNABLES"] = worker.MALLOC_TUNABLES
    os.execv(sys.executable, [sys.executable, *sys.argv])

import numpy as np  # noqa: E402
from astropy.io import fits  # noqa: E402

PAGE = ROOT / "docs" / "performance.md"
ORDER = ("bias", "dark", "flat", "prepare", "flatten", "makesky", "skysub", "crclean", "refcat",
         "solve", "astrometry", "stack", "tables", "lightcurve", "night")  # fmt: skip
SKY = 800.0


def cpu(who=resource.RUSAGE_SELF):
    """Return the CPU seconds used so far."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def memory(field):
    """Return a memory figure of this process [MB]."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", text)[1]) / 1024


def measure(work, repeats=3):
    """Run `work` in a fork, several times.

    Returns
    -------
    dict
        `cpu` [s], the least of the runs, programs it started included; `peak` [MB], above what
        the process held before.
    """

    def child(pipe):
        with contextlib.suppress(AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        best = np.inf
        for _ in range(repeats):
            begin = cpu() + cpu(resource.RUSAGE_CHILDREN)
            work()
            best = min(best, cpu() + cpu(resource.RUSAGE_CHILDREN) - begin)
        pipe.send({"cpu": best, "peak": memory("VmHWM") - before})

    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def measure_program(argv, **options):
    """Return the CPU seconds of a program and of all that it starts."""
    begin = cpu(resource.RUSAGE_CHILDREN)
    subprocess.run([str(word) for word in argv], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)  # fmt: skip
    return cpu(resource.RUSAGE_CHILDREN) - begin


# --- Steps ---------------------------------------------------------------------------------


def simulated_frame(size, seed=1):
    """Return a frame with sky, 300 stars and 200 cosmic rays a megapixel [electron]."""
    rng = np.random.default_rng(seed)
    megapixels = size**2 / 1e6
    image = rng.normal(SKY, np.sqrt(SKY), (size, size)).astype(np.float32)
    y, x = np.mgrid[-10:11, -10:11]
    star = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    for _ in range(int(300 * megapixels)):
        row, column = rng.integers(15, size - 15, 2)
        flux = 10 ** rng.uniform(2, 4.5)
        image[row - 10 : row + 11, column - 10 : column + 11] += flux * star / star.sum()
    for _ in range(int(200 * megapixels)):
        row, column = rng.integers(5, size - 5, 2)
        image[row, column : column + rng.integers(1, 5)] += rng.uniform(500, 3000)
    return image


def steps_at(size, folder):
    """Measure the per-frame steps on one frame, reading and writing included."""
    from framefacts import made_facts

    from lib.background.flatten import flatten_frame
    from lib.background.subtraction import skysub_frame
    from lib.calibration.cosmicrays import crclean_frame
    from lib.calibration.detector import read_raw
    from lib.calibration.prepare import prepare_frame
    from lib.frame.file import Frame, read_frame, write_frame

    shape = (size, size)
    facts = made_facts(
        frame="20220128T000000C0o", shape=list(shape), gain=1.0, rdnoise=6.0, exptime=60.0,
        amplifiers=[{"hdu": 0, "data": [0, size, 0, size], "origin": [0, 0]}],
    )  # fmt: skip
    raw = folder / "raw.fits"
    counts = np.clip(simulated_frame(size) + 1000, 0, 65535).astype(np.uint16)
    fits.writeto(raw, counts, overwrite=True)
    blank = np.zeros(shape, np.uint8)

    def frame(name):
        return read_frame(folder / f"{name}.fits")

    write_frame(folder / "bias.fits", Frame(np.full(shape, 1000, np.float32), blank))
    write_frame(folder / "flat.fits", Frame(np.ones(shape, np.float32), blank))

    # Work of each step, and the files that it reads and writes.
    chain = {
        "prepare": (lambda: prepare_frame(raw, facts, frame("bias")), ["bias"], "p"),
        "flatten": (lambda: flatten_frame(frame("p"), frame("flat")), ["p", "flat"], "fp"),
        "skysub": (
            lambda: skysub_frame(frame("fp"), frame("flat"), order=1),
            ["fp", "flat"],
            "sfp",
        ),
        "crclean": (lambda: crclean_frame(frame("sfp")), ["sfp"], "zsfp"),
    }
    found = {}
    for name, (work, sources, prefix) in chain.items():
        target, copy = folder / f"{prefix}.fits", folder / "copy.fits"
        write_frame(target, work())
        product = read_frame(target)

        def in_and_out(sources=sources, product=product, copy=copy, name=name):
            if name == "prepare":
                read_raw(raw, {0})
            for source in sources:
                read_frame(folder / f"{source}.fits")
            write_frame(copy, product)

        found[name] = measure(lambda work=work, target=target: write_frame(target, work()), 9)
        found[name]["io"] = measure(in_and_out, 9)["cpu"]
    last = folder / "zsfp.fits"
    other = folder / "copy.fits"
    found["read + write of a frame"] = measure(lambda: write_frame(other, read_frame(last)), 9)
    found["the same bytes, copied"] = measure(lambda: other.write_bytes(last.read_bytes()), 9)
    found |= cosmics_at(read_frame(folder / "sfp.fits"))
    return found


def cosmics_at(frame):
    """Measure other ways to find cosmic rays, on the same pixels."""
    from astroscrappy import detect_cosmics
    from lacosmic import remove_cosmics

    image = np.ascontiguousarray(frame.image + np.float32(SKY))
    found = {
        "astroscrappy": measure(
            lambda: detect_cosmics(image, gain=1, readnoise=6, sigclip=5.5, niter=2), 1
        )
    }
    if image.size < 2e6:
        found["lacosmic (Python)"] = measure(
            lambda: remove_cosmics(image, 5, 5.5, 0.3, effective_gain=1, readnoise=6, maxiter=2), 1
        )
    return found


# --- Start-up ------------------------------------------------------------------------------


def startup(folder):
    """Measure what a job costs before and after its work, in both kinds of process."""
    environment = worker.job_environment(1)
    found = {}
    for step in PIPELINE.frame_rules:
        script = folder / f"job.{step}.py"
        script.write_text(
            f"import sys; sys.path.append({str(ROOT / 'scripts')!r})\n"
            "from snakemake.logging import logger\nfrom snakemake.iocontainers import Snakemake\n"
            f"import {step}\nfrom lib.frame.step import process\n"
        )
        plain = min(
            measure_program([sys.executable, script], env=environment, cwd=folder) for _ in range(3)
        )
        server = worker.WarmWorker(ROOT / "scripts")
        server.run(str(script), environment)
        # What a process has used is counted when it has ended.
        time.sleep(2 * workerprocess.IDLE_LIMIT)
        begin = process_cpu(server._process.pid)
        for _ in range(20):
            server.run(str(script), environment)
        time.sleep(2 * workerprocess.IDLE_LIMIT)
        forked = (process_cpu(server._process.pid) - begin) / 20
        server.stop()
        found[step] = {"plain": plain, "warm": forked}
    return found


def process_cpu(pid):
    """Return the CPU seconds of a process and its ended children."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(word) for word in words[11:15]) / os.sysconf("SC_CLK_TCK")


# --- Combination ---------------------------------------------------------------------------


def combinations(size, count=25):
    """Measure the combination of frames, each in memory, with clipping."""
    import ccdproc
    from astropy.nddata import CCDData
    from astropy.stats import mad_std

    from lib.core.combination import combine

    rng = np.random.default_rng(2)
    planes = rng.normal(1000, 10, (count, size, size)).astype(np.float32)
    slab = 256e6

    def plain_median():
        rows = int(slab // (4 * count * size))
        for start in range(0, size, rows):
            np.nanmedian(planes[:, start : start + rows], axis=0)

    def by_ccdproc():
        ccdproc.combine(
            [CCDData(plane, unit="adu") for plane in planes], method="average", sigma_clip=True,
            sigma_clip_low_thresh=4, sigma_clip_high_thresh=4, sigma_clip_func=np.ma.median,
            sigma_clip_dev_func=mad_std, mem_limit=slab, dtype=np.float32,
        )  # fmt: skip

    return {
        "combine": measure(lambda: combine(planes, planes.shape[1:], clip=4.0, memory=slab), 1),
        "numpy.nanmedian (no clipping)": measure(plain_median, 1),
        "ccdproc.combine": measure(by_ccdproc, 1),
        "reading the planes once": measure(lambda: planes.sum(axis=0), 1),
    }


# --- Resampling ----------------------------------------------------------------------------


def bent_cards(shape, bend):
    """Return the WCS of a frame turned by 1 degree, its corners moved out by so many pixels."""
    from lib.astrometry.pixelmaps import fit_cards
    from lib.core.sphere import deproject

    middle = (np.array(shape[::-1]) + 1) / 2
    radius = np.hypot(*middle)

    def sky(x, y):
        u, v = np.asarray(x, float) - middle[0], np.asarray(y, float) - middle[1]
        r = np.hypot(u, v) / radius
        u, v = (0.3 * w * (1 + bend / radius * (0.8 * r**2 + 0.2 * r**6)) for w in (u, v))
        turn = np.radians(1.0)
        east, north = np.cos(turn) * u - np.sin(turn) * v, np.sin(turn) * u + np.cos(turn) * v
        return deproject(np.stack([-east, north], axis=1), 150.0, 20.0)

    return fits.Header(fit_cards(sky, shape)[0])


def resampling(size, folder):
    """Measure the resampling of a frame, from file to file, here and by SWarp."""
    from lib.core.programs import find_program
    from lib.core.wcs import celestial_wcs
    from lib.stack.aligned import AlignedFrame
    from lib.stack.grid import common_grid
    from lib.stack.resample import resample

    shape = (size, size)
    image = simulated_frame(size) - np.float32(SKY)
    found = {}
    for name, bend in (("TAN", 0.0), ("TPV, corners 20 pixels off", 20.0)):
        header = bent_cards(shape, bend)
        fits.writeto(folder / "a.fits", image, header, overwrite=True)
        fits.writeto(folder / "a.weight.fits", np.ones(shape, np.float32), overwrite=True)
        header["NAXIS1"], header["NAXIS2"] = size, size
        grid = common_grid([celestial_wcs(header)])

        def ours(header=header, grid=grid):
            wcs = celestial_wcs(header)
            planes = (fits.getdata(folder / f"{name}.fits") for name in ("a", "a.weight"))
            *pixels, corner = resample(*planes, wcs, grid.wcs)
            described = {"gain": 1.0, "fwhm": 3.0, "noise": 1.0}
            AlignedFrame.store(*pixels, corner, path=folder / "out", **described)

        words = {
            "COMBINE": "N", "SUBTRACT_BACK": "N", "WEIGHT_TYPE": "MAP_WEIGHT", "NTHREADS": "1",
            "RESAMPLING_TYPE": "LANCZOS3", "WRITE_XML": "N", "CENTER_TYPE": "MANUAL",
            "CENTER": f"{grid.ra:.7f},{grid.dec:.7f}", "PIXELSCALE_TYPE": "MANUAL",
            "PIXEL_SCALE": f"{grid.scale:.4f}", "IMAGE_SIZE": f"{grid.nx},{grid.ny}",
        }  # fmt: skip
        argv = [find_program("swarp"), "a.fits"]
        argv += [word for key, value in words.items() for word in (f"-{key}", value)]
        found[name] = {
            "ours": measure(ours)["cpu"],
            "SWarp": min(measure_program(argv, cwd=folder) for _ in range(3)),
        }
    return found


# --- The whole chain -----------------------------------------------------------------------


def differences(size, folder):
    """Measure the subtraction of a pair of images, and the page with 200 candidates.

    The bare library fits one kernel of the same size to the whole images.
    """
    from candidatepage import page_of, write_candidates
    from differencepairs import Seeing, light_of, make_scene, observe
    from stdpipe.sfft import solve
    from transients import SKY, star_table

    from lib.core.settings import DifferenceSettings
    from lib.difference.planes import Plane
    from lib.difference.sfft import kernel_half
    from lib.difference.stars import shared_stars
    from lib.difference.subtraction import subtract

    rng = np.random.default_rng(1)
    scene = make_scene(rng, size, int(3e-4 * size**2), 0)
    seeings = Seeing(4.2), Seeing(3.0)
    planes = [
        Plane(observe(light_of(scene, seeing), sky, rng), np.full((size, size), sky, np.float32),
              np.zeros((size, size), bool), seeing.fwhm, 1.0)
        for seeing, sky in zip(seeings, SKY, strict=True)
    ]  # fmt: skip
    stars = shared_stars(*planes, star_table(scene, seeings[0], np.empty((0, 3))), 6.0,
                         seeings[0].growth)  # fmt: skip
    occupied = np.zeros((size, size), bool)
    side = 2 * kernel_half(3.0, 4.2) + 1

    def bare():
        solve(planes[0].image, planes[1].image, kernel_shape=(side, side), kernel_poly_order=0,
              bg_poly_order=0, flux_poly_order=0, sigma_clip=None, max_iter=1)  # fmt: skip

    found = {
        name: measure(
            lambda name=name: subtract(*planes, stars, occupied, DifferenceSettings(method=name)), 1
        )
        for name in ("sfft", "zogy")
    }
    found[f"stdpipe alone, one kernel of {side} x {side} pixels"] = measure(bare, 1)
    write_candidates(folder, 200)
    found["page with 200 candidates"] = measure(lambda: page_of(folder, 200), 1)
    pages = [len(page_of(folder, number)) / 1e3 for number in (0, 200)]
    return {"size": size, "costs": found, "page": pages[1] - pages[0]}


def differences_part(found):
    """Return the table of difference images."""
    rows = [[name, seconds(one["cpu"]), f"{one['peak']:.0f}"]
            for name, one in found["costs"].items()]  # fmt: skip
    words = f"200 candidates add {found['page']:.0f} kB to the page; their cut-outs lie beside it."
    head = f"### Difference of two images of {found['size']}², in memory"
    return [head, table(["", "CPU s", "MB"], rows), words]


def run_scripts(folder, cores):
    """Run the scripts of a night's jobs again in a pool of processes, without Snakemake."""
    paths = sorted((folder / ".snakemake" / "scripts").glob("*.py"))
    os.chdir(folder)
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        for rule in ORDER:
            pool.map(run_one, [str(p) for p in paths if p.name.endswith(f".{rule}.py")], 1)
        pool.close()
        pool.join()


def run_one(path):
    """Run a job's script in this process."""
    with open(path) as file:
        exec(compile(file.read(), path, "exec"), {"__name__": "__main__", "__file__": path})


def chain(folder, size, exposures, cores=1):
    """Measure a simulated night with Snakemake, and its scripts alone."""
    import simulate

    night = simulate.Night(instrument="lmi", detector_truth=False, exposures=exposures, stars=120,
                           seed=3, size=size, calibrations=5)  # fmt: skip
    simulate.simulate_night(folder, night)
    argv = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", cores,
            "--skip-script-cleanup"]  # fmt: skip
    config = ["--config", "datadir=raw", "imdir=imredux", "refcat=reference.ecsv"]
    found = {"frames": 2 * exposures}
    plain = os.environ | {"AUTOPROC_WARM": "0"}
    found["without the warm process"] = measure_program([*argv, *config], cwd=folder, env=plain)
    # Done anew; the scripts that are kept are those of the last run.
    for path in (folder / ".snakemake" / "scripts").glob("*.py"):
        path.unlink()
    begin = time.monotonic()
    found["Snakemake"] = measure_program([*argv, "--forceall", *config], cwd=folder)
    found["wall"] = time.monotonic() - begin
    found["stack jobs"] = logged_cpu(folder, "stack")
    scripts = list((folder / ".snakemake" / "scripts").glob("*.py"))
    found["jobs"] = len(scripts)
    found["dry"] = measure_program([*argv, "--dry-run", *config], cwd=folder)
    begin = cpu(resource.RUSAGE_CHILDREN)
    pool = multiprocessing.get_context("fork").Process(target=run_scripts, args=(folder, cores))
    pool.start()
    pool.join()
    if pool.exitcode:
        raise RuntimeError("the pool failed")
    found["pool"] = cpu(resource.RUSAGE_CHILDREN) - begin
    found["stack"], found["solve"] = (
        rule_cpu(folder, scripts, rule) for rule in ("stack", "solve")
    )
    found["SWarp"] = swarp_alone(folder)
    return found


def rule_cpu(folder, scripts, rule):
    """Return the CPU seconds of the jobs of a rule, each in its own interpreter."""
    return sum(
        measure_program([sys.executable, path], cwd=folder)
        for path in scripts
        if path.name.endswith(f".{rule}.py")
    )


def logged_cpu(folder, rule):
    """Return the CPU seconds that the jobs of a rule gave at the end of their logs."""
    said = [path.read_text() for path in (folder / "imredux" / "logs" / rule).glob("*.log")]
    return sum(float(re.findall(r"CPU ([\d.]+) s", words)[-1]) for words in said)


def swarp_alone(folder):
    """Measure SWarp on the frames of all stacks, as one would call it by hand."""
    from lib.core.programs import find_program
    from lib.frame.file import UNUSABLE, read_frame

    groups = {}
    for path in sorted((folder / "imredux").glob("azsfp*.fits")):
        frame = read_frame(path)
        if not frame.rejected:
            groups.setdefault(frame.header["FILTER"], []).append(frame)
    total = 0.0
    for band, frames in groups.items():
        work = folder / f"swarp-{band}"
        work.mkdir()
        for n, frame in enumerate(frames):
            fits.writeto(work / f"{n}.fits", frame.image, frame.header)
            weight = (frame.mask & UNUSABLE == 0).astype(np.float32)
            fits.writeto(work / f"{n}.weight.fits", weight)
        names = [f"{n}.fits" for n in range(len(frames))]
        total += measure_program(
            [find_program("swarp"), *names, "-WEIGHT_TYPE", "MAP_WEIGHT", "-COMBINE_TYPE", "MEDIAN",
             "-SUBTRACT_BACK", "N", "-NTHREADS", "1", "-WRITE_XML", "N"], cwd=work
        )  # fmt: skip
    return total


# --- Large nights --------------------------------------------------------------------------


def large_night(folder, count, target=200):
    """Write a night of many raw frames: headers of a simulated one, pixels that take no room.

    Parameters
    ----------
    folder : Path
        Gets a folder `raw`.
    count : int
        Raw frames.
    target : int
        Of which so many are of one target, in two filters.
    """
    import simulate

    seed = folder / "seed"
    night = simulate.Night(instrument="lmi", detector_truth=False, exposures=1, stars=30, seed=1,
                           size=512, filters=("SDSS-R", "SDSS-I"), calibrations=3)  # fmt: skip
    simulate.simulate_night(seed, night)
    sets = {True: [], False: []}
    for path in sorted((seed / "raw").glob("*.fits")):
        header = fits.getheader(path)
        sets[header["OBSTYPE"] == "OBJECT"].append((header, path.stat().st_size))
    science, calibrations = sets[True], sets[False]
    raw = folder / "raw"
    raw.mkdir()
    begin = np.datetime64("2022-01-28T03:00:00")
    for n in range(count):
        is_science = n >= len(calibrations)
        header, size = science[n % len(science)] if is_science else calibrations[n]
        header["DATE-OBS"] = str(begin + np.timedelta64(2 * n, "s"))
        if is_science:
            header["OBJNAME"] = f"field{n // target}"
        with open(raw / f"lmi.{n:05d}.fits", "wb") as file:
            file.write(header.tostring().encode())
            file.truncate(size)


def plan(count, folder, part=2000):
    """Measure the night log and the dry run of a night of so many raw frames.

    Parameters
    ----------
    count : int
    folder : Path
    part : int
        The dry run is measured once more, of so many of the frames: as one of several parts.
    """
    large_night(folder, count)
    log = [
        sys.executable,
        "-c",
        "from lib.night.nightlog import scan; scan('raw', cache='log.json')",
    ]
    bare = [sys.executable, "-c", "import lib.night.nightlog"]
    options = {"cwd": folder, "env": os.environ | {"PYTHONPATH": ROOT / "scripts"}}
    start = measure_program(bare, **options)
    found = {"cold": measure_program(log, **options) - start}
    found["again"] = measure_program(log, **options) - start
    found |= dry_run(folder)
    parts = max(1, count // part)
    if parts > 1:
        found["part"] = dry_run(folder, f"--batch=targets=1/{parts}", "targets") | {"of": parts}
    return found


def dry_run(folder, *words):
    """Return CPU seconds, jobs and memory [MB] of a dry run."""
    # Its own memory: what the kernel counts for a child begins with that of its parent.
    code = (
        "import re\nfrom snakemake.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(re.search(r'VmHWM.*', open('/proc/self/status').read())[0])"
    )
    argv = [sys.executable, "-c", code, "--snakefile", ROOT / "Snakefile", "--cores", "2", *words,
            "--dry-run", "--quiet", "rules", "--config", "datadir=raw", "imdir=imredux",
            "refcat=none"]  # fmt: skip
    begin = cpu(resource.RUSAGE_CHILDREN)
    said = subprocess.run([str(word) for word in argv], cwd=folder, check=True, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout  # fmt: skip
    return {
        "dry": cpu(resource.RUSAGE_CHILDREN) - begin,
        "jobs": int(re.search(r"^total +(\d+)", said, re.MULTILINE)[1]),
        "memory": int(re.search(r"^VmHWM:\s+(\d+)", said, re.MULTILINE)[1]) / 1024,
    }


# --- The page ------------------------------------------------------------------------------


def table(head, rows):
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def seconds(value):
    return f"{value:.3f}" if value < 1 else f"{value:.1f}"


def over_in_and_out(steps, name):
    """Return by how many times a step takes longer than its files are read and written, 2048²."""
    cell = steps.get("2048", {}).get(name, {})
    return f"{cell['cpu'] / cell['io']:.1f}" if "io" in cell else ""


def share_rows(steps, startup):
    """Return the shares of start-up, reading and writing, and math, for each kind of process."""
    rows = []
    for name in startup.keys() & {name for name, cell in steps.items() if "io" in cell}:
        cell = steps[name]
        work = cell["io"], max(0.0, cell["cpu"] - cell["io"])
        row = [name]
        for kind in ("warm", "plain"):
            shares = startup[name][kind], *work
            row += [f"{100 * share / sum(shares):.0f} %" for share in shares]
        rows.append(row)
    return sorted(rows, key=lambda row: ORDER.index(row[0]))


def part_cells(part):
    """Return what the dry run of a part took; blank where the night is no larger."""
    return [f"{part['dry']:.1f} (of {part['of']})", f"{part['memory']:.0f}"] if part else ["", ""]


def steps_part(steps):
    """Return the table of the per-frame steps by frame size."""
    sizes = sorted(steps, key=int)
    head = [
        "",
        *(f"{size}²: CPU s" for size in sizes),
        "s/Mpx",
        *(f"{size}²: MB" for size in sizes),
        "over in and out",
    ]
    rows = []
    for name in steps[sizes[0]]:
        cells = [steps[size].get(name) for size in sizes]
        largest = max((size for size in sizes if name in steps[size]), key=int)
        rate = steps[largest][name]["cpu"] / (int(largest) ** 2 / 1e6)
        rows.append(
            [name, *(seconds(cell["cpu"]) if cell else "" for cell in cells), f"{rate:.3f}",
             *(f"{cell['peak']:.0f}" if cell else "" for cell in cells),
             over_in_and_out(steps, name)]
        )  # fmt: skip
    return ["### Steps", table(head, rows)]


def startup_part(steps, startup):
    """Return the tables of the start-up of a job, and of the parts of its time."""
    rows = [[step, seconds(one["plain"]), seconds(one["warm"]), f"{one['plain'] / one['warm']:.0f}"]
            for step, one in startup.items()]  # fmt: skip
    parts = ["### Start-up of a job"]
    parts.append(table(["", "own interpreter: CPU s", "warm process: CPU s", "ratio"], rows))
    size = "2048" if "2048" in steps else max(steps, key=int)
    parts.append(f"### Where the time of a step goes, {size}²")
    head = ["", *(f"{kind}: {part}" for kind in ("warm process", "own interpreter")
                  for part in ("start-up", "reading and writing", "math"))]  # fmt: skip
    return [*parts, table(head, share_rows(steps[size], startup))]


def images_part(size, combination, resampling):
    """Return the tables of combination and resampling."""
    ours = combination["combine"]["cpu"]
    rows = [[name, seconds(one["cpu"]), f"{one['cpu'] / ours:.1f}", f"{one['peak']:.0f}"]
            for name, one in combination.items()]  # fmt: skip
    parts = [f"### Combination of 25 frames of {size}²"]
    parts.append(table(["", "CPU s", "relative", "MB"], rows))
    rows = [[name, seconds(one["ours"]), seconds(one["SWarp"]), f"{one['SWarp'] / one['ours']:.1f}"]
            for name, one in resampling.items()]  # fmt: skip
    parts.append(f"### Resampling of a frame of {size}², from file to file")
    return [*parts, table(["", "CPU s", "SWarp alone: CPU s", "ratio"], rows)]


def night_part(night):
    """Return the table of a whole night, and its ratios."""
    head = (
        f"### A night: {night['frames']} science frames of {night['size']}², {night['jobs']} jobs"
    )
    names = {"Snakemake": "Snakemake", "without the warm process": "Snakemake, AUTOPROC_WARM=0",
             "pool": "the same scripts in a pool, no Snakemake",
             "stack jobs": "stack, all filters, jobs of the warm process",
             "stack": "stack, all filters, each in an interpreter of its own",
             "SWarp": "SWarp alone, the same frames",
             "solve": "solve (detection included), all filters"}  # fmt: skip
    rows = [[words, seconds(night[name])] for name, words in names.items()]
    ratios = (
        f"Snakemake over pool: {night['Snakemake'] / night['pool']:.2f}; stack over SWarp: "
        f"{night['stack jobs'] / night['SWarp']:.2f}, {night['stack'] / night['SWarp']:.2f} in "
        f"interpreters of their own; solve: {night['solve'] / night['frames']:.2f} CPU "
        f"s a frame. Start of Snakemake and dry run: {seconds(night['dry'])} s."
    )
    return [head, table(["", "CPU s"], rows), ratios]


def plans_part(plans):
    """Return the table of the planning of large nights."""
    head = [
        "raw frames",
        "jobs",
        "night log, cold: CPU s",
        "again",
        "dry run: CPU s",
        "ms a job",
        "MB",
        "one of its parts: CPU s",
        "MB",
    ]
    rows = [[count, str(one["jobs"]), seconds(one["cold"]), seconds(max(0.0, one["again"])),
             f"{one['dry']:.1f}", f"{1000 * one['dry'] / one['jobs']:.2f}", f"{one['memory']:.0f}",
             *part_cells(one.get("part"))]
            for count, one in plans.items()]  # fmt: skip
    return ["### Large nights", table(head, rows)]


def report(found):
    """Return the measured part of the page."""
    steps = found["steps"]
    parts = [f"Measured {found['date']} on {found['machine']}."]
    parts += steps_part(steps)
    parts += startup_part(steps, found["startup"])
    parts += images_part(found["combination_size"], found["combination"], found["resampling"])
    parts += differences_part(found["differences"])
    parts += night_part(found["chain"])
    parts += plans_part(found["plans"])
    return "\n\n".join(parts)


def write_page(text):
    """Put the measured part between its marks in the page."""
    page = PAGE.read_text()
    begin, end = "<!-- measured -->", "<!-- end of measured -->"
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def machine():
    """Return what was measured on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small frames; writes no page")
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    options = parser.parse_args()
    quick = options.quick
    found = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "steps": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found["startup"] = startup(folder)
        for size in (256, 512) if quick else (1024, 2048, 3072):
            found["steps"][str(size)] = steps_at(size, folder)
        found["combination_size"] = 256 if quick else 2048
        found["combination"] = combinations(found["combination_size"])
        found["resampling"] = resampling(found["combination_size"], folder)
        (folder / "candidates").mkdir()
        found["differences"] = differences(256 if quick else 2048, folder / "candidates")
        size, exposures = (512, 3) if quick else (1024, 25)
        found["chain"] = chain(folder / "night", size, exposures) | {"size": size}
        found["plans"] = {}
        for count in (100, 500) if quick else (500, 5000, 20_000):
            (folder / str(count)).mkdir()
            found["plans"][str(count)] = plan(count, folder / str(count))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    text = report(found)
    print(text)
    if not quick:
        write_page(text)


if __name__ == "__main__":
    main()
