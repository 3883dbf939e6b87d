"""Landscapes that code paints, with captions that pixels can prove.

`grammar` says what may be in a scene and how it is called, `painter` paints it; `sky`, `terrain`, `water` and `things`
are what it paints with, `palette` holds every colour, `canvas` the brush.
"""
