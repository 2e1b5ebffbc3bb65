"""The gallery: the parts of backend.py, one purpose each.

settings, errors, tokens, files      values and decisions, without I/O
worker_client, catalogue             what is in the channels; knows nothing of the visitor
pages, sign_in, api, health          what a visitor asks for
middleware                           what happens around every request

Each module uses only those above it. What lives as long as the application is reached by an
`AppKey`, which stands beside its class.
"""

__version__ = "0.1.0"
