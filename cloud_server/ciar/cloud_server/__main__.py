"""`python -m ciar.cloud_server`: the same as `ciar serve`."""

import typer

from ciar.cloud_server.cli import serve

typer.run(serve)
