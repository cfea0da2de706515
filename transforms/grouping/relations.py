"""The names of how one image derives from another."""

from transforms.imaging.orientation import is_mirror

RELATIONS = (
    "exact",
    "pixels",
    "reencoded",
    "resized",
    "cropped",
    "bordered",
    "overlaid",
    "recoloured",
    "turned",
    "mirrored",
    "similar",
)

DUPLICATE_RELATIONS = tuple(name for name in RELATIONS if name != "similar")


def whole_image_relation(orientation: int, same_size: bool, recoloured: bool) -> str:
    """Name the relation of two images that agree as a whole.

    Args:
        orientation: the EXIF orientation value 1..8 that turns one into the other.
        same_size: whether width and height are equal after the turn.
        recoloured: whether their colours differ.

    Returns:
        ``mirrored``, ``turned``, ``recoloured``, ``resized`` or ``reencoded``, the first that fits.
    """
    if is_mirror(orientation):
        return "mirrored"
    if orientation != 1:
        return "turned"
    if recoloured:
        return "recoloured"
    return "reencoded" if same_size else "resized"
