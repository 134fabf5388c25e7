"""What became of the night: outcomes of frames, pictures, the page, the summary.

Takes the products; gives frames.ecsv, night.html and the lines that end a run.
"""
