"""What lies beside files: metadata, transcripts in JSON, the subtitles in another format."""

import json
import re
from typing import Any

import pytest
from backfill_runs import Backfill

from deployments.backfill.sidecars import MAX_SIDECAR_BYTES
from deployments.core.errors import InvalidInput

SRT = "00:01,0 --> 00:02,0\nx\n"
VTT = "WEBVTT\n\n00:01.0 --> 00:02.0\nx\n"
SEGMENT = {"start": 1.0, "end": 2.0, "text": "x"}
LONG = MAX_SIDECAR_BYTES * "x"


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        ("1", "isn't a JSON object"),
        ("{", "isn't JSON"),
        ('{"text": "x"}', "has text, which each row has of its own"),
        (json.dumps({"notes": LONG}), "is longer than 1,048,576 bytes"),
    ],
)
async def test_a_sidecar_that_cannot_be_used_is_told_of_the_file(
    backfill: Backfill, sidecar: str, reason: str
) -> None:
    backfill.write("talk.srt", SRT)
    backfill.write("talk.json", sidecar)
    assert await backfill.run("talk.srt") == 2
    assert reason in backfill.reasons["talk.srt", None]
    assert backfill.service.stored == {}


@pytest.mark.parametrize(
    "transcript",
    [
        {"text": "x", "segments": [SEGMENT], "language": "en"},
        {"text": "", "segments": [], "language": "en"},
        {"segments": [SEGMENT], "word_segments": [SEGMENT]},
        {"model": {"type": "base"}, "transcription": [{"text": "x"}]},
        {"text": "x", "chunks": [{"timestamp": [1.0, 2.0], "text": "x"}]},
        [SEGMENT],
        [],
        {"text": "x", "segments": [{"text": LONG}]},
        [{"text": LONG}],
    ],
    ids=lambda found: json.dumps(found)[:40],
)
async def test_a_transcript_beside_subtitles_is_no_metadata(
    backfill: Backfill, transcript: Any
) -> None:
    backfill.write("talk.srt", SRT)
    backfill.write("talk.json", json.dumps(transcript, indent=2))
    assert await backfill.run("talk.srt") == 0
    assert [each.metadata for each in backfill.service.stored.values()] == [{}]
    assert f"{backfill.folder}/talk.json is a list or a transcript, no metadata" in backfill.shown
    assert backfill.tally.warnings == 1


async def test_metadata_may_have_lists(backfill: Backfill) -> None:
    backfill.write("talk.srt", SRT)
    metadata = {"chunks": ["a", "b"], "segments": 3}
    backfill.write("talk.json", json.dumps(metadata))
    assert await backfill.run("talk.srt") == 0
    assert [each.metadata for each in backfill.service.stored.values()] == [metadata]
    assert backfill.tally.warnings == 0


@pytest.mark.parametrize("other", ["a/talk.vtt", "b/talk.vtt.gz"])
async def test_the_same_subtitles_in_two_formats_are_not_stored_twice(
    backfill: Backfill, other: str
) -> None:
    backfill.write("a/talk.srt", SRT)
    backfill.write("a/more.srt", SRT)
    backfill.write(other, VTT)
    with pytest.raises(InvalidInput, match=r"talk\.srt and .*talk\.vtt.* are both the subtitles"):
        await backfill.run("a", "b" if other.startswith("b") else "a")
    assert backfill.service.calls == []
    assert await backfill.run("**/*.srt") == 0
    assert set(backfill.service.stored) == {("talk", "talk.srt:1"), ("more", "more.srt:1")}


async def test_subtitles_of_one_name_that_are_two_media_items_are_both_stored(
    backfill: Backfill,
) -> None:
    backfill.write("a/talk.srt", SRT)
    backfill.write("b/talk.vtt", VTT)
    assert await backfill.run(".", media_item_pattern=re.compile(r"/(\w)/talk")) == 0
    backfill.write("b/talk.json", '{"media_item_id": "c"}')
    assert await backfill.run("a", "b") == 0
    assert {item for item, _ in backfill.service.stored} == {"a", "b", "talk", "c"}
