"""Pure functions on the bytes and pixels of one image; nothing here imports Beam."""
