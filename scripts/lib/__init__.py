"""The science of autoproc, in rooms that import only from those below them.

From the top: engine, report, stack, astrometry, photometry, background, calibration, night,
reference, frame, core. Each says in its first lines what it takes and gives.
"""
