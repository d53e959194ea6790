"""Keys of worker files: what no exposition could show is no key of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from exporter.merge.format import CorruptFileError
from exporter.merge.series import parse


@pytest.mark.parametrize("documentation", [7, None, [], {}, True])
def test_a_help_text_that_is_no_text_is_corrupt(documentation: Any) -> None:
    with pytest.raises(CorruptFileError):
        parse("counter", json.dumps(["hits", "hits_total", {}, documentation]).encode())


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_surrogates_are_replaced_in_texts_and_corrupt_in_names(text: str) -> None:
    series, documentation = parse("counter", json.dumps(["hits", "hits_total", {"a": text}, text]).encode())
    assert documentation == dict(series.labels)["a"] == text[:-1] + "\ufffd"

    with pytest.raises(CorruptFileError):
        parse("counter", json.dumps([text, text + "_total", {}, "help"]).encode())


@pytest.mark.parametrize("bound", ["nan", "NaN", "-nan", "", "high"])
def test_a_bound_that_is_no_number_is_corrupt(bound: str) -> None:
    with pytest.raises(CorruptFileError):
        parse("histogram", json.dumps(["took", "took_bucket", {"le": bound}, "help"]).encode())


@pytest.mark.parametrize(
    "labels", [{"": "x"}, {"a.b": "1", "a-b": "2"}, {"_x": "1", "9x": "2", "\u00e4x": "3"}, {"a": 1}]
)
def test_labels_that_cannot_stand_beside_each_other_are_corrupt(labels: dict[str, Any]) -> None:
    with pytest.raises(CorruptFileError):
        parse("counter", json.dumps(["hits", "hits_total", labels, "help"]).encode())


@pytest.mark.parametrize(
    ("stem", "family", "name"),
    [
        ("counter", "", "_total"),
        ("counter", "hits", "hits"),
        ("counter", "hits", "misses_total"),
        ("summary", "size", "size_bucket"),
        ("native", "took", "took:12345"),
        ("native", "took", "took:x"),
    ],
)
def test_a_name_that_its_kind_does_not_have_is_corrupt(stem: str, family: str, name: str) -> None:
    with pytest.raises(CorruptFileError):
        parse(stem, json.dumps([family, name, {}, "help"]).encode())


def test_series_that_share_their_labels_keep_one_copy_of_them() -> None:
    """A histogram has a series for each of its buckets."""
    keys = [["took", "took_bucket", {"path": "/", "le": le}, "help"] for le in ("0.1", "+Inf")]
    low, high = (parse("histogram", json.dumps(key).encode())[0] for key in keys)

    assert low.labels == (("path", "/"),)
    assert low.labels is high.labels
