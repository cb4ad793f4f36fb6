"""Files of homographies: their names, and the ways in which nine numbers are written."""

import codecs
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from kp.data.image_files import HPatchesError
from kp.support.errors import one_line

_NAME = re.compile(r"H(?:_([0-9]{1,9})_|([0-9]{1,9})to)([0-9]{1,9})p?(?:\.txt|\.csv)?", re.IGNORECASE)
_BYTE_ORDER_MARKS = (  # that of UTF-32 starts with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def numbered_homographies(paths: Iterable[Path]) -> dict[tuple[int, int], Path]:
    """The file of each homography: key (j, k) for pixels of image j -> pixels of image k.

    Names are ``H_1_2`` (HPatches), ``H1to2p`` (Oxford) or ``H1to2``, also with .txt or .csv. If a homography is there
    twice, the first of these is read.
    """
    found = [(match, path) for path in paths if (match := _NAME.fullmatch(path.name))]
    found.sort(key=lambda pair: (pair[0][1] is None, len(pair[1].name)), reverse=True)
    return {(int(match[1] or match[2]), int(match[3])): path for match, path in found}


def read_homography(path: Path) -> Tensor:
    """A homography (3, 3), float64, from a text of nine numbers.

    White space, commas, semicolons and brackets may be between the numbers, as numpy and MATLAB print a matrix. The
    text is UTF-8, or UTF-16 or UTF-32 with a byte order mark.

    Raises:
        HPatchesError: the file cannot be read, or the numbers are not a homography.
    """
    try:
        values = [float(word) for word in _words(_decode(path.read_bytes()))]
    except (ValueError, OSError) as e:
        raise HPatchesError(f"{path} cannot be read as 3x3 numbers ({one_line(e)}): unpack the archive again") from None
    if len(values) != 9:
        raise HPatchesError(f"{path} has {len(values)} numbers, not 3x3: 9 are needed, unpack the archive again")
    H = torch.tensor(values, dtype=torch.float64).view(3, 3)
    if not H.isfinite().all():
        raise HPatchesError(f"{path} has numbers that are not finite: unpack the archive again")
    if torch.linalg.matrix_rank(H) < 3:
        raise HPatchesError(f"{path} is a singular matrix, which no camera makes: unpack the archive again")
    return H


def has_plain_text(path: Path) -> bool:
    """True for a file in the release's form: numbers with white space between them, and nothing else."""
    return re.fullmatch(rb"[-+.0-9eE\s]*", path.read_bytes()) is not None


def _decode(data: bytes) -> str:
    """The text of a file. Raises UnicodeDecodeError, a ValueError."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding)
    return data.decode("utf-8-sig")


def _words(text: str) -> list[str]:
    """The numbers of a text. A comma inside each of nine words, as in ``1,5 0,25 -12``, is the point of a decimal."""
    text = re.sub(r"[#%].*", " ", text).strip()  # comments of numpy and MATLAB
    text = re.sub(r"^(?:\w+\s*=)?\s*(?:np\.|numpy\.)?(?:array|matrix)?(?=[\[(])", "", text)
    text = re.sub(r"[\[\](){}]", " ", text)
    words = [stripped for word in text.split() if (stripped := word.strip(",;"))]
    if len(words) == 9:
        return [word.replace(",", ".") for word in words]
    return re.sub(r"[,;]", " ", text).split()
