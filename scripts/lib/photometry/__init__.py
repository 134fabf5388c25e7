"""Sources and their light: detection, point-spread function, apertures, noise, zero points.

Takes an image, its noise and its mask as arrays; gives fluxes with errors, and zero points.
"""
