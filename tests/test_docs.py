"""What the documentation quotes is what the code prints."""

from __future__ import annotations

import re

from conftest import ROOT

SOURCES = [
    *(ROOT / "workflow").rglob("*.py"),
    *(ROOT / "workflow").rglob("*.smk"),
    *(ROOT / "Snakefile", ROOT / "Makefile"),
]


def test_messages_in_troubleshooting_are_those_of_the_code() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    messages = [line for block in re.findall(r"^```\n(.*?)^```$", text, re.M | re.S) for line in block.splitlines()]
    assert len(messages) > 20
    # Strings that Python joins, and what stands between braces, are one text with gaps.
    code = re.sub(r"\"\s*\n\s*f?\"", "", "\n".join(path.read_text() for path in SOURCES))
    for message in messages:
        pieces = [piece.strip(" :;,()=") for piece in message.split("...")]
        for piece in filter(None, pieces):
            assert piece in code, f"{message!r}: {piece!r} is printed nowhere"
