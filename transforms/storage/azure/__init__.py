"""Azure Blob Storage through Azure's own SDK.

- ``names``: accounts, containers, blobs and their URIs.
- ``credentials``: from the environment or a mounted file, never from an option.
- ``account``: requests to one account, each limited, counted, retried and verified.
- ``blobs``: the store: what an input names, listing, single names, reading.

Only ``credentials`` and ``account`` import the SDK, when the first request is to be made.
"""
