"""Reference stars: tables of users, surveys, VizieR and its mirrors.

Takes a field of the sky; gives one checked table of positions and magnitudes in one system.
"""
