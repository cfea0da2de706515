"""Acting on a report: a plan is made of its groups, shown, and only then carried out.

- ``names``: where each file goes; names that cannot collide or lead out of the destination.
- ``plan``: what a report asks for, bound to its run and to the hashes of its files.
- ``places``: the destination, a folder of this machine or a prefix in Azure.
- ``journal``: what is about to be done and what was done, in the destination itself.
- ``copy``: does it, several files at once, so that doing it again changes nothing.
- ``command``: ``beam-dedup apply``.

Nothing here changes, moves or deletes a file of the user: copies are new files, and a file that is
there is never overwritten.
"""
