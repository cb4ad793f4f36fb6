"""The kinds of sequences: of a Markdown table by hand, and the public ones."""

import pytest

from kp.evaluation.kinds import kinds

WEBCAMS = ("chamonix", "courbevoie", "frankfurt", "mexico", "panorama", "stlouis")
INDEX = """# Sequences

i_prose, blur

| sequence | size | what |
|---|---|---|
| i_night | 10x20 | my Webcam: day, night |
| i_leuven | 10x20 | taken again, with a jpeg |
| i_stack | blur | exposure |
|`i_soft`|10x20| out of focus (BLUR)|
| i_ubc | 10x20 | nobody knows |
| v_wall | 10x20 | blur |
"""


def test_an_index_says_what_changes(tmp_path):
    (tmp_path / "INDEX.md").write_text(INDEX)
    names = ["i_night", "i_leuven", "i_stack", "i_soft", "i_ubc", "v_wall", "i_prose", "i_lamp"]
    assert list(kinds(tmp_path, names).values()) == [
        *("webcam", "JPEG", "exposure", "blur"),
        "JPEG",  # as is known of Oxford's
        "viewpoint",
        *("other", "other"),
    ]


@pytest.mark.parametrize("root", [None, "empty"])
def test_public_sequences_are_known_without_an_index(tmp_path, root):
    known = {"i_leuven": "exposure", "i_bikes": "blur", "i_trees": "blur", "i_ubc": "JPEG"}
    known |= {f"i_{name}": "webcam" for name in WEBCAMS}
    known |= {"v_chamonix": "viewpoint", "i_chamonix_b": "other", "leuven": "exposure", "scene": "other"}
    assert kinds(tmp_path if root else None, list(known)) == known


def test_an_index_that_is_not_text_leaves_everything_as_it_is(tmp_path):
    (tmp_path / "INDEX.md").write_bytes(bytes(range(256)))
    assert kinds(tmp_path, ["i_ubc", "i_a"]) == {"i_ubc": "JPEG", "i_a": "other"}
