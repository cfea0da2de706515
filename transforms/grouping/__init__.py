"""Pure functions on keys, orders and graphs; no Beam in here."""
