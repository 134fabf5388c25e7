"""The sky behind the sources: its level, source masks, the master sky.

Takes flat-fielded frames; gives the sky and sky-subtracted frames.
"""
