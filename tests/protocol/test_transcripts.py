"""The transcripts under ``transcripts/`` say what the core does; this runs them word for word.

``python -m tests.protocol.test_transcripts`` writes the outputs anew, to be read before they are kept.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.protocol.interpreter import Interpreter

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


def replay(text: str) -> str:
    """The transcript with its outputs as the core gives them now."""
    out: list[str] = []
    interpreter = Interpreter()
    for line in text.splitlines():
        if line.startswith("begin"):
            options = dict(word.split("=", 1) for word in line.split()[1:])
            interpreter = Interpreter(
                request_id=options.get("request", ""), deadline_s=float(options.get("deadline", 300))
            )
            out.append(line)
        elif line.startswith("#") or not line:
            out.append(line)
        elif not line.startswith("  "):
            out.append(line)
            out.extend(f"  {effect}" for effect in interpreter.run(line))
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=[path.stem for path in TRANSCRIPTS])
def test_transcript_is_what_the_core_does(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert replay(text) == text


if __name__ == "__main__":
    for transcript in TRANSCRIPTS:
        transcript.write_text(replay(transcript.read_text(encoding="utf-8")), encoding="utf-8")
