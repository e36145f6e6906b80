"""Read a NIfTI file whole, and say in one line what is wrong with one that cannot be read.

Of the header's two forms the sform counts where its code is above 0 and it is valid, else the
qform under the same conditions. A form that is not valid is taken for absent.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError, ImageDataError

from msnmo_bids.errors import BadInputError, how_to_get, keeper_of

_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_OF_SIZE = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_NIFTI_MAGICS = (b"n+1\x00", b"n+2\x00")
_AGAIN = "Copy or download the file again"
_SINGULAR = 1e-3  # determinant of a form's unit axes, below which two of them agree

SFORM_INVALID = "sform_invalid"
TRAILING_BYTES = "trailing_bytes"


def read_nifti(path: Path) -> nib.Nifti1Image:
    """Read a NIfTI-1 or NIfTI-2 file into memory, to its last byte and checksum.

    ``extra["flags"]`` of the image (Nifti2Image is a subclass) names what was passed over: an
    invalid sform, bytes after the end of the image.

    Raises
    ------
    BadInputError
        The file is missing, a git-annex or git-lfs pointer without content, not a NIfTI file,
        truncated or corrupted, or its header cannot be understood.
    """
    content, n_after = _decompress(path, read_content(path))
    kind = _nifti_kind(content)
    if kind is None:
        raise BadInputError(
            "not a NIfTI file", file=path, remedy="Convert the image to NIfTI, or exclude the file"
        )
    header = kind.from_fileobj(io.BytesIO(content), check=False)
    _check_header(path, header)
    if int(header.get_data_offset()) < header.sizeof_hdr:
        raise BadInputError(
            f"its header says that the voxels begin within the header (vox_offset "
            f"{int(header.get_data_offset())})",
            file=path,
            remedy=f"Convert the image again, or set vox_offset to {header.single_vox_offset}",
        )
    n_voxels = np.prod([int(size) for size in header.get_data_shape()], dtype=object)
    n_expected = int(header.get_data_offset()) + int(n_voxels) * header.get_data_dtype().itemsize
    if len(content) < n_expected:
        raise _truncated(path)
    try:
        image = _with_valid_form(kind.from_fileobj(io.BytesIO(content)), io.BytesIO(content))
    except (HeaderDataError, ImageDataError, ValueError, OSError) as error:
        raise BadInputError(
            f"NIfTI header cannot be understood ({error})", file=path, remedy=_AGAIN
        ) from error
    if n_after or len(content) > n_expected:
        image.extra["flags"].append(TRAILING_BYTES)
    return image


def open_nifti(path: Path) -> nib.Nifti1Image:
    """Open a NIfTI-1 or NIfTI-2 file that is known to be sound; the data stay on the disk."""
    with ImageOpener(str(path)) as stream:
        kind = _nifti_kind(stream.read(540))
        if kind is None:
            raise ValueError(f"{path} is not a NIfTI file")
        stream.seek(0)
        header = kind.from_fileobj(stream)
    return _with_valid_form(header, str(path))


def load_array(path: Path, dtype: type | None = None) -> np.ndarray:
    """Return the values of an image that we wrote, (X, Y, Z), in its own dtype or in another."""
    return np.asanyarray(nib.Nifti1Image.from_filename(path).dataobj, dtype=dtype)


def has_form(image: nib.Nifti1Image) -> bool:
    """Whether the header of an image of `read_nifti` or `open_nifti` says where its voxels lie."""
    return bool(int(image.header["sform_code"]) or int(image.header["qform_code"]))


def _valid_form(header: nib.Nifti1Header, name: str) -> np.ndarray | None:
    """Return a header's ``"sform"`` or ``"qform"``, (4, 4) from index to RAS mm.

    None where its code is 0, or its axes are not finite or not independent.
    """
    if int(header[f"{name}_code"]) <= 0:
        return None
    try:
        affine = header.get_sform() if name == "sform" else header.get_qform()
    except (HeaderDataError, ValueError):
        return None
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(np.isfinite(affine)) or np.any(sizes == 0):
        return None
    return affine if abs(np.linalg.det(affine[:3, :3] / sizes)) >= _SINGULAR else None


def _with_valid_form(header: nib.Nifti1Header, data: io.BytesIO | str) -> nib.Nifti1Image:
    """Return an image whose codes are 0 for the forms that are not valid."""
    sform_there = int(header["sform_code"]) > 0
    invalid = [name for name in ("sform", "qform") if _valid_form(header, name) is None]
    for name in invalid:
        header[f"{name}_code"] = 0
    image_class = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    flags = [SFORM_INVALID] if sform_there and invalid == ["sform"] else []
    proxy = ArrayProxy(data, header.copy())
    return image_class(proxy, header.get_best_affine(), header, extra={"flags": flags})


def read_content(path: Path) -> bytes:
    """Return the bytes of the file, unless it only points to them."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        if not path.is_symlink():
            raise BadInputError("file does not exist", file=path) from error
        if "annex" in str(path.readlink()):
            raise _no_content(path, "git-annex") from error
        raise BadInputError("symbolic link to a file that does not exist", file=path) from error
    except OSError as error:
        raise BadInputError(
            f"file cannot be read ({error.strerror or error})",
            file=path,
            remedy="Check its permissions and the disk",
        ) from error
    if not content:
        raise BadInputError("file is empty (0 bytes)", file=path, remedy=_AGAIN)
    if keeper := keeper_of(content):
        raise _no_content(path, keeper)
    return content


def _decompress(path: Path, content: bytes) -> tuple[bytes, int]:
    """Return the content and the number of bytes after the end of its gzip stream."""
    compressed = content[:2] == _GZIP_MAGIC
    if path.suffix == ".gz" and not compressed:
        if _nifti_kind(content) is not None:
            raise BadInputError(
                "NIfTI file that is not compressed, although it is named .nii.gz",
                file=path,
                remedy="Rename it to .nii, or compress it with gzip",
            )
        raise BadInputError(
            "not a gzip file, although it is named .nii.gz", file=path, remedy=_AGAIN
        )
    if not compressed:
        return content, 0
    if path.suffix != ".gz":
        raise BadInputError(
            "compressed file that is not named .nii.gz", file=path, remedy="Rename it to .nii.gz"
        )
    try:
        return _gzip_members(content)
    except EOFError as error:
        raise _truncated(path) from error
    except zlib.error as error:
        raise BadInputError(
            f"compressed data are corrupted ({error})", file=path, remedy=_AGAIN
        ) from error


def _gzip_members(content: bytes) -> tuple[bytes, int]:
    """Decompress the members of a gzip stream up to the first thing that is not one."""
    parts: list[bytes] = []
    rest = content
    while rest[:2] == _GZIP_MAGIC:
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            part = member.decompress(rest)
        except zlib.error:
            if not parts:
                raise
            break
        if not member.eof:
            if not parts:
                raise EOFError
            break
        parts.append(part)
        rest = member.unused_data
    return b"".join(parts), len(rest)


def _nifti_kind(content: bytes) -> type[nib.Nifti1Header] | None:
    """Return the header class that the first bytes announce."""
    for order in ("<", ">"):
        size = int(np.frombuffer(content[:4].ljust(4, b"\0"), dtype=f"{order}i4")[0])
        kind = _HEADER_OF_SIZE.get(size)
        if kind is not None and len(content) >= size:
            magic = content[344:348] if size == 348 else content[4:8]
            return kind if magic in _NIFTI_MAGICS else None
    return None


def _check_header(path: Path, header: nib.Nifti1Header) -> None:
    """Refuse what nibabel would mend silently: it turns a voxel size of 0 into 1 mm."""
    try:
        header.get_data_dtype()
        int(header.get_data_offset())
        n_axes = len(header.get_data_shape())
    except (HeaderDataError, KeyError, OverflowError, ValueError) as error:
        raise BadInputError(
            f"NIfTI header cannot be understood ({error})", file=path, remedy=_AGAIN
        ) from error
    sizes = np.asarray(header["pixdim"][1 : 1 + min(n_axes, 3)], dtype=float)
    if not np.all(np.isfinite(sizes)) or np.any(sizes == 0):
        text = " x ".join(f"{size:g}" for size in sizes)
        raise BadInputError(
            f"voxel size of {text} mm in the header",
            file=path,
            remedy="Convert the image from DICOM again, or repair its header",
        )


def _no_content(path: Path, keeper: str) -> BadInputError:
    remedy = how_to_get(keeper, path)
    return BadInputError(f"{keeper} link without its content", file=path, remedy=remedy)


def _truncated(path: Path) -> BadInputError:
    return BadInputError("file is truncated: its data end too early", file=path, remedy=_AGAIN)
