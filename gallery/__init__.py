"""The gallery: the parts of backend.py, one purpose each.

settings, errors, tokens, seals,
files, search, logs                  values and decisions, without I/O
safe_names, split_films, languages,
subtitle_names                       what names say and may be
encodings, webvtt                    subtitles as browsers want them
workers                              which of them serves a file
problem_kinds, problems              what can be wrong with the settings
shares, presentation                 links that open one file, and how that is shown to others
kept, share_store, sessions          which links and sessions were ended, in SQLite
sign_in_links, answered              what was used up: sign-in links, updates; in SQLite
database, rows, bonds, index,
related                              what is known of the channels, in SQLite
answers, worker_client               asking the workers
worker_choice                        which of them a player is sent to
catalogue                            what is in the channels; knows nothing of the visitor
bot_api, messages, polling, updates  what Telegram tells us itself
pages, sign_in, health               what everybody may ask for
snippets, oembed, previews           how other sites show a shared file
share_urls                           where at a worker a shared file is
visitors, share_api                  what the holder of a link may have; making and ending links
http_file, small_files, whole_files  the bytes of small files
tracks, share_tracks                 subtitles, for the owner and for others
state, api                           what the owner asks for
long_answers, dav, playlists         what other programs mount and play
bot_words, bot_links                 the bot: what it says, and which films and links it means
bot_talk, bot_status                 how it speaks, and how all is
bot_answers, bot_presses, bot        what it answers to whom
middleware                           what happens around every request

Each module uses only those above it. What lives as long as the application is reached by an
`AppKey`, which stands beside its class.
"""

__version__ = "0.1.0"
