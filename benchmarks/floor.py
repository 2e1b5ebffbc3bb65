"""The least CPU that a byte from Telegram can cost: AES-IGE decryption and SHA-256, no more.

    python benchmarks/floor.py MEBIBYTES BYTES_PER_MESSAGE

prints milliseconds of CPU per MiB. MTProto 2.0 (core.telegram.org/mtproto/description) makes every
client do these two to each message; all else that a worker spends is its own doing. Run by the
worker's interpreter, on the worker's core.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time

import cryptg

MIB = 1 << 20


def floor_ms(total_bytes: int, message_bytes: int) -> float:
    """Milliseconds of CPU per MiB, for so many bytes in messages of that size."""
    message, key, iv = os.urandom(message_bytes), os.urandom(32), os.urandom(32)
    began_at = time.process_time()
    for _ in range(total_bytes // message_bytes):
        hashlib.sha256(cryptg.decrypt_ige(message, key, iv)).digest()
    return (time.process_time() - began_at) * 1000 / (total_bytes / MIB)


if __name__ == "__main__":
    print(floor_ms(int(sys.argv[1]) * MIB, int(sys.argv[2])))
