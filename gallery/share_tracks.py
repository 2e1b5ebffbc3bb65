"""Share tracks: the subtitles of a film for whoever has a link to it.

/v/{share}/subtitles                   which there are
/v/{share}/subtitles/{message_id}.vtt  one of them; a `<track>` of any page may show it
"""

from typing import Final

from aiohttp import web

from gallery.catalogue import CATALOGUE
from gallery.errors import file_not_found
from gallery.related import subtitles_of
from gallery.tracks import answer_with, list_tracks
from gallery.visitors import allow_reading, base_url, for_visitors, shared_file


@for_visitors
async def list_share_subtitles(request: web.Request) -> web.StreamResponse:
    """GET /v/{share}/subtitles"""
    film = await shared_file(request)
    place = f"{base_url(request)}/v/{request.match_info['share']}/subtitles"
    return web.json_response(await list_tracks(request.app[CATALOGUE].index, film, place))


@for_visitors
async def show_share_subtitles(request: web.Request) -> web.StreamResponse:
    """GET /v/{share}/subtitles/{message_id}.vtt: of this film's, no others."""
    film = await shared_file(request)
    wanted = request.match_info["message_id"]
    for each in await subtitles_of(request.app[CATALOGUE].index, film):
        if str(each.file.message_id) == wanted:
            return await answer_with(request, each.file)
    raise file_not_found()


SHARE_TRACK_HANDLERS: Final = frozenset({list_share_subtitles, show_share_subtitles})


def share_track_routes() -> list[web.RouteDef]:
    place = "/v/{share}/subtitles"
    one = place + "/{message_id}.vtt"
    return [
        web.get(place, list_share_subtitles),
        web.get(one, show_share_subtitles),
        *(web.options(path, allow_reading) for path in (place, one)),
    ]
