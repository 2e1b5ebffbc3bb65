"""The backend of Rangegram: shows the gallery, signs what may be watched, streams small files only.

    browser -- GET /, /api/files --> backend.py -- GET /files --> render-service-chunked.py
       |                                 |  |     (listing token)             ^
       | <- worker URL, one-hour JWT ----+  +-- posts, small files, the bot   |
       |                                        (Bot API, <= 20 MB)           |
       +----------------- GET + Range, JWT in the URL ------------------------+

Rules:
1. Only channels named in CHANNELS are ever listed or signed.
2. A secret is in no log line, error text or page; a signed URL goes to the player and nowhere else.
3. Everything that can grow has a limit, and every limit is a named constant with its unit.
4. This file assembles; each part is a module of `gallery/`, whose docstring lists them in order,
   and uses only the modules above it.

Run: `python backend.py`. The settings are the fields of `Settings`; the README has them as a table.
"""

import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from aiohttp import ClientSession, DummyCookieJar, web, web_response

from gallery.api import list_channels, list_files, show_file, sign_url
from gallery.bot import make_bot
from gallery.bot_api import BotApi
from gallery.catalogue import CATALOGUE, Catalogue
from gallery.database import Database
from gallery.dav import dav_routes
from gallery.health import STARTED, health
from gallery.index import SCHEMA, Index
from gallery.logs import set_up_logs
from gallery.middleware import (
    CONTENT_POLICY,
    add_security_headers,
    answer_errors,
    check_visitor,
    content_policy,
    log_request,
)
from gallery.pages import PAGES, Pages, gallery_page, service_worker, static_file
from gallery.playlists import playlist_routes
from gallery.sessions import ENDED_SESSIONS, EndedSessions
from gallery.settings import SETTINGS, Settings, SettingsError
from gallery.share_api import share_api_routes
from gallery.share_store import SHARES, ShareStore
from gallery.share_tracks import share_track_routes
from gallery.sign_in import GATE, SignInGate, sign_in, sign_in_page, sign_out
from gallery.sign_in_links import USED_SIGN_IN_LINKS, UsedSignInLinks
from gallery.small_files import SMALL_FILES, SmallFiles, send_small_file
from gallery.state import STATE, State, show_state
from gallery.tracks import TRACKS, Tracks, list_subtitles, show_subtitles
from gallery.updates import UPDATES, WEBHOOK_PATH, make_updates, receive_update
from gallery.visitors import EMBED_POLICY, visitor_routes
from gallery.whole_files import WholeFiles
from gallery.worker_choice import WORKER_CHOICE, WorkerChoice
from gallery.worker_client import WORKER_CLIENT, WorkerClient
from gallery.workers import Workers

log = logging.getLogger("backend")

BODY_MAX_BYTES: Final = 16 * 1024  # the largest thing anybody sends us is a password
FOLDER: Final = Path(__file__).resolve().parent


def create_app(settings: Settings) -> web.Application:
    """The application for these settings, ready to be served."""
    app = web.Application(
        middlewares=[log_request, answer_errors, check_visitor], client_max_size=BODY_MAX_BYTES
    )
    app[SETTINGS] = settings
    app[GATE] = SignInGate()
    app[PAGES] = Pages(FOLDER)
    is_direct = settings.small_files == "direct"
    media_hosts = [*settings.worker_urls, *([settings.bot_api_url] if is_direct else [])]
    app[CONTENT_POLICY] = content_policy(media_hosts, framed_urls=settings.worker_urls)
    app[EMBED_POLICY] = content_policy(settings.worker_urls, settings.frame_ancestors)
    app[STARTED] = time.monotonic()
    app.cleanup_ctx.extend([catalogue_lifespan, kept_lifespan, bot_api_lifespan])
    app.on_response_prepare.append(add_security_headers)
    app.add_routes(routes())
    return app


def routes() -> list[web.RouteDef]:
    """Every address, and what answers there."""
    ids = r"{chat_id:-?\d{1,20}}/{message_id:[1-9]\d{0,9}}"
    return [
        web.get("/", gallery_page),
        web.get("/api/files", list_files),
        web.get("/api/channels", list_channels),
        web.get("/api/state", show_state),
        web.get(f"/api/files/{ids}", show_file),
        web.get(f"/api/files/{ids}/url", sign_url),
        web.get(f"/api/files/{ids}/subtitles", list_subtitles),
        web.get(f"/subtitles/{ids}.vtt", show_subtitles),
        web.get(f"/files/{ids}", send_small_file),
        web.get(f"/files/{ids}/{{name:[^/]+}}", send_small_file),
        web.post(WEBHOOK_PATH, receive_update),
        web.get("/sign-in", sign_in_page),
        web.post("/sign-in", sign_in),
        web.post("/sign-out", sign_out),
        web.get("/static/{path:.+}", static_file),
        web.get("/service-worker.js", service_worker),
        web.get("/health", health),
        *share_api_routes(),
        *visitor_routes(),
        *share_track_routes(),
        *dav_routes(),
        *playlist_routes(),
    ]


async def catalogue_lifespan(app: web.Application) -> AsyncIterator[None]:
    """The workers, and what they tell of the channels; none is asked before somebody comes."""
    settings = app[SETTINGS]
    index = Index(Database(settings.database, SCHEMA), settings.channels)
    await index.open()
    async with ClientSession(cookie_jar=DummyCookieJar()) as session:
        workers = Workers(settings.worker_urls)
        client = app[WORKER_CLIENT] = WorkerClient(session, workers, settings.jwt_secret)
        choice = app[WORKER_CHOICE] = WorkerChoice(workers, client)
        catalogue = app[CATALOGUE] = Catalogue(settings.channels, client, index)
        catalogue.start()
        yield
        await catalogue.close()
        await choice.close()
    await index.close()


async def bot_api_lifespan(app: web.Application) -> AsyncIterator[None]:
    """Listen for new posts, have small files at hand, and let the bot answer."""
    settings, catalogue = app[SETTINGS], app[CATALOGUE]
    if settings.small_files == "direct":
        log.warning(
            "SMALL_FILES=direct: whoever is signed in gets URLs that hold BOT_TOKEN, and with it"
            " the bot. They stay in histories and logs; take proxy unless you must."
        )
    async with ClientSession(cookie_jar=DummyCookieJar()) as session:
        api = BotApi(session, settings.bot_api_url, settings.bot_token)
        small_files = app[SMALL_FILES] = SmallFiles(api, catalogue.index)
        whole_files = WholeFiles(session, settings, small_files, app[WORKER_CHOICE])
        app[TRACKS] = Tracks(whole_files)
        bot = make_bot(settings, api, session, catalogue, app[SHARES], way=lambda: app[UPDATES].way)
        updates = app[UPDATES] = make_updates(settings, api, catalogue.index, bot.hear)
        state = app[STATE] = State(settings, app[WORKER_CLIENT], api, updates)
        updates.start()
        yield
        await app[TRACKS].close()
        await state.close()
        await updates.close()
        await bot.close()


async def kept_lifespan(app: web.Application) -> AsyncIterator[None]:
    """What was ended or used up: in the index's file, each in a table and on its own connection."""
    settings = app[SETTINGS]
    shares = app[SHARES] = ShareStore(settings.database, on_render=settings.on_render)
    ended_sessions = app[ENDED_SESSIONS] = EndedSessions(settings.database)
    used_links = app[USED_SIGN_IN_LINKS] = UsedSignInLinks(settings.database, settings.jwt_secrets)
    await ended_sessions.open()
    await used_links.open()
    yield
    await used_links.close()
    await ended_sessions.close()
    await shares.close()


def main() -> None:
    """Serve until stopped. Exit status 2: the settings are wrong; 1: the port is taken."""
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        for problem in error.problems:
            print(f"backend: {problem}", file=sys.stderr)
        sys.exit(2)
    set_up_logs([settings.bot_token.partition(":")[2], *settings.jwt_secrets])
    # aiohttp tells its version and Python's to everybody. Answers to what is no HTTP go past all
    # hooks, so it is the default that is changed, where it is read: that module only imports it,
    # which the type checker minds.
    web_response.SERVER_SOFTWARE = "Rangegram"  # type: ignore[attr-defined]
    log.info("gallery on http://%s:%d", settings.host, settings.port)
    try:
        web.run_app(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            access_log=None,
            print=None,
            handler_cancellation=True,
        )
    except OSError as error:
        log.error("cannot listen on %s:%d: %s", settings.host, settings.port, error.strerror)
        sys.exit(1)


if __name__ == "__main__":
    main()
