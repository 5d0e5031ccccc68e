"""A folder of agents for resources/: the table of what they score, and digests of every file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from .files import atomic_path, file_digest


def write_shelf(readme: Path, sums: Path, text: str, rows: Sequence[Mapping[str, str]], agents: Sequence[Path]) -> None:
    """Write the page and the digests of what lies beside each agent.

    Args:
        sums: the digests' paths are relative to its folder.
        text: of the page, with a place for ``{table}``.
        rows: of the table, one an agent.
    """
    files = [file for agent in agents for file in sorted(agent.parent.glob("[!.]*.*"))]
    digests = "".join(f"{file_digest(file)}  {file.relative_to(sums.parent)}\n" for file in files)
    table = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
    for output, content in ((readme, text.format(table=table)), (sums, digests)):
        with atomic_path(output) as temporary:
            temporary.write_text(content)
