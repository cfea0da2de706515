"""The names of how one image derives from another."""

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

# A crop of 2 % on each side moves a corner by 0.7 cells and zooms by 0.026 or more; scaling and
# quarter turns move it by 0.3 at most and zoom by 0.008, captions and logos zoom by 0.014.
MOVED_CELLS = 0.5
_ZOOMED = 0.02
_OVERLAID = 0.03  # a logo over 3 % of the picture

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
    # Here: the names of the relations are wanted before numpy is.
    from transforms.imaging.orientation import is_mirror

    if is_mirror(orientation):
        return "mirrored"
    if orientation != 1:
        return "turned"
    if recoloured:
        return "recoloured"
    return "reencoded" if same_size else "resized"


def partial_relation(
    zoom: float, moved: float, framed: bool, differing: float
) -> tuple[str, int] | None:
    """Name the relation of two images of which layouts show that they do not agree as a whole.

    Args:
        zoom: how much more the first shows, as a share; negative if the second does.
        moved: how far a corner lies from where it would be, in cells of the layout.
        framed: whether the one that shows more ends in a plain frame.
        differing: share of the cells that differ.

    Returns:
        ``cropped``, ``bordered``, ``turned`` or ``overlaid``, with +1 if the first is the derived
        form, -1 if the second is, 0 if that is not known; None if they do agree as a whole.
    """
    if moved >= MOVED_CELLS and abs(zoom) >= _ZOOMED:
        first_is_wider = 1 if zoom > 0 else -1
        # What shows more is the whole of a crop, but the derived form where the rest is a frame.
        return ("bordered", first_is_wider) if framed else ("cropped", -first_is_wider)
    if moved >= MOVED_CELLS:
        return "turned", 0
    return ("overlaid", 0) if differing >= _OVERLAID else None
