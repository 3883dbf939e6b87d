"""`python -m cloud_server`: the same as `ciar serve`."""

import typer

from cloud_server.cli import serve

typer.run(serve)
