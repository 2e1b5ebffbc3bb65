"""The gallery: the parts of backend.py, one purpose each.

settings, errors, tokens, files,
search                               values and decisions, without I/O
shares, share_store                  links that open one file, and which of them were revoked
database, index                      what is known of the channels, in SQLite
worker_client, catalogue             what is in the channels; knows nothing of the visitor
pages, sign_in, api, health          what the owner asks for
visitors, share_api                  what the holder of a link may have; making and ending links
middleware                           what happens around every request

Each module uses only those above it. What lives as long as the application is reached by an
`AppKey`, which stands beside its class.
"""

__version__ = "0.1.0"
