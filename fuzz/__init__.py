"""Fuzzing: every parser that reads what strangers send, and both services as a whole, fed nonsense.

    source             where a target's values come from: a fuzzer's bytes, or hypothesis
    stage              both services on a pocket Telegram, and what they may answer at all
    worker_parsers     ranges, conditions, tokens, file names
    worker_wire        the worker's own cutting of Telegram's stream into packets
    worker_requests    real HTTP requests to a running worker
    gallery_parsers    ranges, cursors and searches, listings, share links, tokens
    gallery_requests   real HTTP requests to a running gallery
    simulator_frames   the pocket Telegram's framings, envelopes, messages
    targets            the list of all of them: a new parser gets its module here
                       and its line there
    engine             atheris, which looks for inputs that run lines no other input ran
    __main__           `make fuzz`: for as long as you like, with a corpus that is kept

A target takes values and checks what must hold whatever they are. tests/test_fuzz.py runs each with
both engines for some seconds, and once more with every input that ever failed.
"""
