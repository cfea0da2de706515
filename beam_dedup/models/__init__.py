"""``beam-dedup models``: weights of learned models, and what is made of them once.

- ``command``: one line for each subcommand; each is a module of this package with a ``main``.
- ``list``: what there is to fetch, and what is in the cache.
- ``fetch``: download into the cache; the only code of this program that downloads anything but
  images.
- ``verify``: hash again what the cache holds.
- ``labels``: embed the names of ``--labels`` ahead of a run.
"""
