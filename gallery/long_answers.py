"""Long answers: sent as they are made, so that none is ever whole in memory; and text in XML."""

import re
from collections.abc import AsyncIterator
from typing import Final
from xml.sax.saxutils import escape

from aiohttp import web

from gallery.errors import ApiError

# What XML 1.0 has no way to write (https://www.w3.org/TR/xml/#charsets).
_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
XML_HEAD: Final = '<?xml version="1.0" encoding="utf-8"?>\n'


async def send_long(
    request: web.Request, response: web.StreamResponse, pieces: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Send these pieces; raise ApiError if there is not even a first one.

    What fails later ends with the connection: a body that ends early must never look complete.
    """
    if request.method == "HEAD":
        return response
    try:
        async for piece in pieces:
            if not response.prepared:
                await response.prepare(request)
            await response.write(piece)
        await response.write_eof()
    except ApiError:
        if not response.prepared:
            raise
        if request.transport is not None:
            request.transport.abort()
    return response


def xml_text(text: str) -> str:
    """Text for an element or an attribute in double quotes."""
    return escape(_NOT_IN_XML.sub("", text), {'"': "&quot;"})
