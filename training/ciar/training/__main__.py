"""`python -m ciar.training` is `ciar.training.cli`."""

from ciar.training.cli import app

app()
