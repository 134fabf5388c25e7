"""Reports: outcomes of frames, pictures, the page, the summary.

Takes the products; gives frames.ecsv, night.html and the lines printed at the end of a run.
"""
