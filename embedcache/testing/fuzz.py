"""Image files as an attacker or a bad disk makes them: whole ones of every format, and ways to spoil them."""

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom.data import get_testdata_file

from embedcache.testing.files import write_dicom, write_nifti, write_png

SECRET = "ZEBRAFISH7734"
"""In names of files and folders, and as PatientID: no reason may carry it."""
HUGE = (0, 1, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**63 - 1, 2**64 - 1)
BOMB_BYTES = 3 * 2**30
"""What a bomb unpacks to: more than any limit of the run."""
_BLOCK = 2**24

Seeds = dict[str, bytes]
"""File name → whole content."""


def whole_files(folder: Path) -> Seeds:
    """Small files of each format that is read; compressed DICOM from pydicom's own, MATLAB, NRRD and MHA where their writers are.

    `folder` is where they are made.
    """
    random_ = np.random.default_rng(0)
    grey = random_.integers(0, 255, (40, 36)).astype(np.uint8)
    deep = random_.integers(0, 4096, (40, 36)).astype(np.uint16)
    voxels = random_.integers(0, 900, (9, 8, 7)).astype(np.int16)
    write_png(folder / "grey.png", grey)
    write_png(folder / "deep.png", deep)
    write_png(folder / "rgba.png", np.dstack([grey, grey, grey, grey]))
    Image.fromarray(grey).convert("P").save(folder / "palette.png")
    Image.fromarray(grey).save(folder / "photo.jpg", quality=80)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate"):
        Image.fromarray(deep).save(folder / f"{compression}.tif", compression=compression)
    write_dicom(folder / "ct.dcm", deep.astype(np.int16), modality="CT", intercept=-1024.0, patient_id=SECRET)
    write_dicom(folder / "frames.dcm", np.stack([deep, deep, deep]), patient_id=SECRET)
    write_dicom(folder / "colour.dcm", np.dstack([grey, grey, grey]), patient_id=SECRET)
    write_nifti(folder / "plain.nii", voxels)
    write_nifti(folder / "packed.nii.gz", voxels.astype(np.float32), slope=2.0, intercept=-1.0)
    write_nifti(folder / "series.nii.gz", np.stack([voxels, voxels], axis=-1))
    nib.save(nib.Nifti2Image(voxels, np.eye(4)), folder / "two.nii")
    np.save(folder / "volume.npy", voxels)
    np.savez(folder / "several.npz", image=voxels)
    np.savez_compressed(folder / "single.npz", volume=voxels)
    _scientific(folder, voxels)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    for name in _PYDICOM:
        path = get_testdata_file(name, download=False)
        if path:
            files[name] = Path(str(path)).read_bytes()
    return files


_PYDICOM = (
    "JPEG2000.dcm",
    "JPEG-LL.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_jp2klossless.dcm",
    "image_dfl.dcm",
    "MR_small_bigendian.dcm",
    "examples_palette.dcm",
    "nested_priv_SQ.dcm",
)
"""Small ones that pydicom has inside, and never has to download."""


def _scientific(folder: Path, voxels: np.ndarray) -> None:
    """Formats whose writers are extras. Imported here, where they may be absent."""
    from scipy.io import savemat  # scipy.io takes a while, and only this needs it

    savemat(folder / "five.mat", {"image": voxels})
    savemat(folder / "nested.mat", {"case": {"image": voxels, "label": 1.0, "name": "a"}}, do_compression=True)
    try:
        import h5py
    except ImportError:
        h5py = None
    if h5py is not None:
        with h5py.File(folder / "seven.mat", "w", userblock_size=512) as file:
            file.create_dataset("image", data=voxels, chunks=True, compression="gzip")
        head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
        with (folder / "seven.mat").open("r+b") as raw:
            raw.write(head)
    try:
        import SimpleITK as sitk
    except ImportError:
        return
    image = sitk.GetImageFromArray(voxels)
    for name in ("volume.mha", "volume.nrrd"):
        sitk.WriteImage(image, str(folder / name), True)


# --- spoiling -------------------------------------------------------------------------------------


def flip_bytes(data: bytes, rng: random.Random) -> bytes:
    """1 to 16 bytes changed; half of the time near the beginning, where headers are."""
    spoilt = bytearray(data)
    reach = len(data) if rng.random() < 0.5 else min(len(data), 512)
    for _ in range(rng.choice((1, 2, 4, 16))):
        spoilt[rng.randrange(reach)] = rng.randrange(256)
    return bytes(spoilt)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """The first part only."""
    return data[: rng.randrange(len(data))]


def rearrange(data: bytes, rng: random.Random) -> bytes:
    """A piece is cut out, said twice, or overwritten by zeros or ones."""
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.choice((1, 4, 64, 1024)))
    piece = data[start:stop]
    middle = rng.choice((b"", piece * 2, b"\0" * len(piece), b"\xff" * len(piece)))
    return data[:start] + middle + data[stop:]


def inflate_numbers(data: bytes, rng: random.Random) -> bytes:
    """1 to 3 numbers of 2, 4 or 8 bytes, in either byte order, become huge, in the first kilobyte or anywhere."""
    spoilt = bytearray(data)
    reach = len(data) if rng.random() < 0.3 else min(len(data), 1024)
    for _ in range(rng.randint(1, 3)):
        width = rng.choice((2, 4, 8))
        at = rng.randrange(max(reach - width, 1))
        value = rng.choice(HUGE) % 2 ** (8 * width)
        spoilt[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
    return bytes(spoilt[: len(data)])


def inside(data: bytes, rng: random.Random) -> bytes:
    """What is packed is unpacked, spoilt and packed again, so that checksums hold: gzip, PNG, zip."""
    spoil = rng.choice((flip_bytes, inflate_numbers, truncate, rearrange))
    if data.startswith(b"\x1f\x8b"):
        return gzip.compress(spoil(gzip.decompress(data), rng), 1)
    if data.startswith(b"\x89PNG"):
        return _png(_chunks(data), spoil, rng)
    if data.startswith(b"PK"):
        return _zip(data, spoil, rng)
    return spoil(spoil(data, rng) or data, rng)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _png(
    chunks: list[tuple[bytes, bytes]], spoil: Callable[[bytes, random.Random], bytes], rng: random.Random
) -> bytes:
    which = rng.randrange(len(chunks))
    written = b"\x89PNG\r\n\x1a\n"
    for i, (kind, body) in enumerate(chunks):
        content = spoil(body, rng) if i == which and body else body
        written += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return written


def _zip(data: bytes, spoil: Callable[[bytes, random.Random], bytes], rng: random.Random) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, spoil(old.read(name), rng))
    return sink.getvalue()


SPOILERS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped": flip_bytes,
    "truncated": truncate,
    "rearranged": rearrange,
    "inflated": inflate_numbers,
    "inside": inside,
}


# --- bombs ----------------------------------------------------------------------------------------


def bombs() -> Seeds:
    """Small files that unpack to far more, claim 100 GB, are nested without end, or lead in a circle."""
    zeros = gzip.compress(bytes(_BLOCK)) * (BOMB_BYTES // _BLOCK)
    nifti = nib.Nifti1Header()
    nifti.set_data_dtype(np.uint8)
    nifti["magic"], nifti["vox_offset"] = b"n+1", 352
    claims = {"claims-100-GB": (4096, 4096, 6400), "claims-3-GB": (2048, 1024, 1536)}
    made: Seeds = {}
    for name, shape in claims.items():
        nifti.set_data_shape(shape)
        head = nifti.binaryblock + b"\0" * 4
        made[f"{name}.nii"] = head + b"\0" * 1000
        made[f"{name}.nii.gz"] = gzip.compress(head) + zeros
    made["png-100-GB.png"] = _bomb_png(320_000, 320_000, 0, 2**20)
    made["png-170-MP.png"] = _bomb_png(13_000, 13_000, 6, 4 * 13_000 * 13_000 + 13_000)
    made["png-text.png"] = _text_bomb()
    made["circle.tif"] = _circular_tiff()
    for name, body in (("deep", _nested(3000)), ("wide", _nested(1) * 20_000)):
        made[f"sequences-{name}.dcm"] = _dicom(body, "1.2.840.10008.1.2.1")
    made["deflated.dcm"] = _dicom(_packed_zeros(BOMB_BYTES), "1.2.840.10008.1.2.1.99")
    made["frames.dcm"] = _dicom(_frames(), "1.2.840.10008.1.2.1")
    made["length.dcm"] = _dicom(
        b"\x10\x00\x10\x00PN\x08\x00" + SECRET[:8].encode() + _element(0x7FE0, 0x10, b"OW", b"", 2**32 - 2),
        "1.2.840.10008.1.2.1",
    )
    npy = io.BytesIO()
    np.lib.format.write_array_header_1_0(npy, {"descr": "|u1", "fortran_order": False, "shape": (2000, 8000, 6400)})
    made["claims-100-GB.npy"] = npy.getvalue() + b"\0" * 1000
    sink = io.BytesIO()
    with (
        zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("image.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy.getvalue())
        for _ in range(8):
            member.write(bytes(_BLOCK))
    made["claims-100-GB.npz"] = sink.getvalue()
    nrrd = b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4096 4096 6400\nencoding: gzip\n\n"
    made["claims-100-GB.nrrd"] = nrrd + zeros
    mha = "ObjectType = Image\nNDims = 3\nDimSize = 4096 4096 6400\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    made["claims-100-GB.mha"] = mha.encode() + b"\0" * 1000
    return made


def _packed_zeros(n: int) -> bytes:
    """Raw deflate of n zeros (in whole blocks of 16 MiB), made in no time: one block says the same as any other."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(_BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * -(-n // _BLOCK) + packer.flush()


def _zlib_zeros(n: int) -> bytes:
    """The same as zlib packs it, without a true checksum at the end: it is unpacked before that is seen."""
    return b"\x78\xda" + _packed_zeros(n) + bytes(4)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _bomb_png(width: int, height: int, colour: int, content: int) -> bytes:
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(bytes(_BLOCK)) for _ in range(content // _BLOCK + 1)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    text = b"Comment\0\0" + _zlib_zeros(2**30)
    body = zlib.compress(bytes(20))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"zTXt", text)
        + _chunk(b"IDAT", body)
        + _chunk(b"IEND", b"")
    )


def _circular_tiff() -> bytes:
    """A directory whose next directory is itself."""
    tags = [(256, 4), (257, 4), (258, 8), (259, 1), (262, 1), (273, 200), (277, 1), (278, 4), (279, 16)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 8)).ljust(200, b"\0") + bytes(16)


def _element(group: int, element: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Explicit VR, little-endian; `length` is what it claims."""
    n = len(value) if length is None else length
    long = vr in (b"OB", b"OW", b"SQ", b"UN")
    head = struct.pack("<HH2s", group, element, vr)
    return head + (struct.pack("<HI", 0, n) if long else struct.pack("<H", n)) + value


def _nested(depth: int) -> bytes:
    opening = _element(0x0040, 0xA730, b"SQ", b"", 2**32 - 1) + struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1)
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return opening * depth + closing * depth


def _frames() -> bytes:
    """A thousand million frames of one pixel, with ten of them there."""
    numbers = [(0x02, 1), (0x10, 1), (0x11, 1), (0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0)]
    elements = {number: _element(0x28, number, b"US", struct.pack("<H", value)) for number, value in numbers}
    elements[0x04] = _element(0x28, 0x04, b"CS", b"MONOCHROME2 ")
    elements[0x08] = _element(0x28, 0x08, b"IS", b"1000000000")
    return b"".join(elements[n] for n in sorted(elements)) + _element(0x7FE0, 0x10, b"OB", bytes(10))


def _dicom(body: bytes, syntax: str) -> bytes:
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = _element(2, 0x10, b"UI", uid)
    return bytes(128) + b"DICM" + _element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + body
