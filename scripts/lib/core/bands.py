"""Bands of the reference system: their names, their order, AB and Vega."""

BANDS = ("u", "g", "r", "i", "z", "y", "B", "V", "R", "I", "J", "H", "K")
"""Bands of a reference table, in the order of its columns and of a custom catalogue. u g r i z are
SDSS, y is Pan-STARRS, B V R I Johnson-Kron-Cousins, all AB; J H K are 2MASS, Vega."""

BAND_ORDER = "u B g V r R i I z Z y Y J H K".split()
"""Bands and filters from blue to red."""

BLUE_TO_RED = tuple(band for band in BAND_ORDER if band in BANDS)
"""`BANDS` in the order of wavelength."""

VEGA_BANDS = ("J", "H", "K")
"""Bands whose magnitudes are Vega; all others are AB."""

AB_MINUS_VEGA = {
    "u": 0.91,
    "g": -0.08,
    "r": 0.16,
    "i": 0.37,
    "z": 0.54,
    "B": -0.12,
    "V": -0.01,
    "R": 0.18,
    "I": 0.42,
    "J": 0.91,
    "H": 1.39,
    "K": 1.85,
}
"""m_AB - m_Vega: AB magnitudes of Vega by Blanton & Roweis (2007, AJ 133, 734), table 1, less
Vega's own magnitudes: 0.03 in B V R I, whose standard stars have Vega there (Bessell et al. 1998,
A&A 333, 231), 0 in the others. Willmer (2018, ApJS 236, 47) has the same within 0.01 in B V R I."""
