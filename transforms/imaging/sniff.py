"""What a file is by its first bytes and by its name, without any decoder."""

from typing import Final

__all__ = ["classify_unidentified", "describe", "looks_like_image_name", "sniff"]

# First bytes of image formats that are read, and the name that Pillow has for them.
_ALLOWED: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
# Brands of ISO base media files (ISO/IEC 23008-12 table of brands; AV1 Image File Format 1.1).
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIF_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
)
_OPEN_BRANDS: Final = frozenset({b"mif1", b"msf1", b"miaf"})  # the compatible brands decide
_BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})  # DIB header sizes, bytes

# First bytes of pictures that are refused. Several of them reach other programs or parsers
# (EPS starts Ghostscript, WMF the system's own drawing), the rest have no single raster.
_REFUSED: Final = (
    (b"%!PS-Adobe-3.0 EPSF", "EPS"),
    (b"%!PS-Adobe-2.0 EPSF", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"8BPS", "PSD"),
    (b"SIMPLE  =", "FITS"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2\0", "CUR"),
    (b"icns", "ICNS"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"IIRO", "ORF raw"),
    (b"IIRS", "ORF raw"),
    (b"IIU\0", "RW2 raw"),
    (b"FUJIFILMCCD-RAW", "RAF raw"),
    (b"gimp xcf", "XCF"),
    (b"DDS ", "DDS"),
    (b"BLP1", "BLP"),
    (b"BLP2", "BLP"),
    (b"qoif", "QOI"),
    (b"AT&TFORM", "DjVu"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"v/1\x01", "OpenEXR"),
    (b"\x59\xa6\x6a\x95", "Sun raster"),
    (b"\x8aMNG\r\n\x1a\n", "MNG"),
    (b"\x8bJNG\r\n\x1a\n", "JNG"),
    (b"/* XPM */", "XPM"),
    (b"P1\n", "PPM"),
    (b"P2\n", "PPM"),
    (b"P3\n", "PPM"),
    (b"P4\n", "PPM"),
    (b"P5\n", "PPM"),
    (b"P6\n", "PPM"),
    (b"P7\n", "PPM"),
)
# Documents that hold no image of their own: refused by that name if they are called an image.
_DOCUMENTS: Final = ((b"%PDF-", "PDF"), (b"%!PS", "PostScript"))
_EMF_SIGNATURE: Final = b" EMF"  # at byte 40 of an enhanced metafile
_WMF_HEADERS: Final = (b"\1\0\x09\0\0\3", b"\2\0\x09\0\0\3", b"\1\0\x09\0\0\1")
_SVG_WINDOW: Final = 1024  # bytes in which an SVG element must begin
_MARKUP: Final = b"<"

_IMAGE_EXTENSIONS: Final = frozenset(
    "jpg jpeg jpe jfif jif pjpeg pjp mpo png apng webp gif bmp dib tif tiff btf avif avifs heic"
    " heics heif heifs hif jp2 j2k jpc jpf jpx jxl jxr wdp hdp eps epsf epsi psd psb svg svgz wmf"
    " emf fits fit fts ico cur icns tga vda icb vst dds pcx ppm pgm pbm pnm pfm pam xbm xpm sgi rgb"
    " bw ras hdr exr qoi xcf djvu mng jng dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 raf pef srw"
    " x3f 3fr iiq erf kdc dcr mrw rwl".split()
)


def looks_like_image_name(path: str) -> bool:
    """Return whether a name ends like that of an image, read or refused alike.

    Args:
        path: a path or URI; only what follows its last dot counts.
    """
    name = path.replace("\\", "/").rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return bool(stem and dot) and extension.lower() in _IMAGE_EXTENSIONS


def sniff(data: bytes) -> str | None:
    """Return the format that the first bytes announce, if it is one that is read.

    Args:
        data: the file, or at least its first 64 bytes.

    Returns:
        ``JPEG``, ``PNG``, ``GIF``, ``WEBP``, ``TIFF``, ``BMP``, ``AVIF`` or ``HEIF``, or None.
    """
    for magic, name in _ALLOWED:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if data[4:8] == b"ftyp":
        return _brand(data)
    return None


def _brand(data: bytes) -> str | None:
    size = min(int.from_bytes(data[:4], "big"), 512)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, size, 4))]
    if brands[0] in _AVIF_BRANDS:
        return "AVIF"
    if brands[0] in _HEIF_BRANDS:
        return "HEIF"
    if brands[0] in _OPEN_BRANDS:
        return "AVIF" if _AVIF_BRANDS.intersection(brands) else "HEIF"
    return None


def _refused(data: bytes) -> str | None:
    for magic, name in _REFUSED:
        if data.startswith(magic):
            return name
    if data[40:44] == _EMF_SIGNATURE and data.startswith(b"\1\0\0\0"):
        return "EMF"
    if data.startswith(_WMF_HEADERS):
        return "WMF"
    if data[4:8] == b"ftyp" and data[8:12] == b"crx ":
        return "CR3 raw"
    head = data[:_SVG_WINDOW].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(_MARKUP) and b"<svg" in head.lower():
        return "SVG"
    return None


def classify_unidentified(data: bytes, path: str) -> str:
    """Return the error type of bytes that no decoder of the allowlist takes.

    A picture of a format that is not read is ``format_not_allowed`` whatever its name. A document
    (PDF, PostScript) is that too if it is named like an image, and else ``not_an_image``. Other
    bytes are ``unidentified`` if the name or the first bytes promise an image, or if there is no
    name to judge by.

    Args:
        data: the file.
        path: its path or URI; empty if unknown.

    Returns:
        ``format_not_allowed``, ``unidentified`` or ``not_an_image``.
    """
    named = looks_like_image_name(path)
    if _refused(data) is not None:
        return "format_not_allowed"
    if data.startswith(tuple(magic for magic, _ in _DOCUMENTS)):
        return "format_not_allowed" if named or not path else "not_an_image"
    if named or not path or sniff(data) is not None:
        return "unidentified"
    return "not_an_image"


def describe(data: bytes) -> str:
    """Return a name for bytes that are not read, for an error message."""
    name = _refused(data) or next((n for magic, n in _DOCUMENTS if data.startswith(magic)), None)
    if name is not None:
        return f"{name} is not read"
    if not data:
        return "the file is empty"
    return f"no known image begins with {data[:8]!r}"
