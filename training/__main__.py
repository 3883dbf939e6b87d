"""`python -m training` is `training.cli`."""

from training.cli import app

app()
