"""The same held-out rows through any runs: what each world model foresees, remembers and believes, as one page.

`rows` -> `passing` (what a run makes of them) -> measures, one a file -> `measured` (of one run, JSON) -> `page`.
"""
