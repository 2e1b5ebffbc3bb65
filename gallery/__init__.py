"""The gallery: the parts of backend.py, one purpose each.

settings, errors, tokens, files,
search, logs                         values and decisions, without I/O
workers                              which of them serves a file
problem_kinds, problems              what can be wrong with the settings
shares                               links that open one file
kept, share_store, sessions          which links and sessions were ended, in SQLite
database, index                      what is known of the channels, in SQLite
answers, worker_client               asking the workers
worker_choice                        which of them a player is sent to
catalogue                            what is in the channels
bot_api, updates                     what Telegram tells us itself
pages, sign_in, health               what everybody may ask for
visitors, share_api                  what the holder of a link may have; making and ending links
http_file, small_files               the bytes of small files
state, api                           what the owner asks for
middleware                           what happens around every request

Each module uses only those above it. What lives as long as the application is reached by an
`AppKey`, which stands beside its class.
"""

__version__ = "0.1.0"
