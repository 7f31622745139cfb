"""The options that several commands have, each said once."""

from __future__ import annotations

from typing import Annotated, Final

import typer

ADDRESS_DEFAULT: Final = "127.0.0.1:50051"

Address = Annotated[
    str,
    typer.Option(
        "--address", "--coordinator", envvar="PINCEX_ADDRESS", help="The coordinator, host:port; several with commas."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TransactionId = Annotated[str, typer.Argument(help="The transaction, as execute printed it.")]
Reason = Annotated[str, typer.Option(help="Why, for whoever reads the record of it. Kept for good.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Preview = Annotated[bool, typer.Option("--preview", help="Only show what would be touched.")]
