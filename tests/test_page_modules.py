"""The page's decisions: modules without page or network, called in Chromium as they are served.

Goal: what each of them decides, in tables. Method: a bare server with the folder `static/`, a blank
page of its origin, and `import()` in it; no Node.js is needed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from chromium import open_chromium
from conftest import REPOSITORY

# One browser for all of them: nothing here leaves a trace in the page.
pytestmark = pytest.mark.asyncio(loop_scope="module")

Call = Callable[[str, str], Awaitable[Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def call() -> AsyncIterator[Call]:
    """Evaluates an expression in which `m` is a module of static/."""

    async def blank(_request: web.Request) -> web.Response:
        return web.Response(text="<!DOCTYPE html>", content_type="text/html")

    app = web.Application()
    app.add_routes([web.get("/", blank), web.static("/static", REPOSITORY / "static")])
    async with TestServer(app) as server, open_chromium() as page:
        await page.goto(str(server.make_url("/")))

        async def call(module: str, expression: str) -> Any:
            return await page.evaluate(
                f"import('/static/{module}').then(async (m) => {expression})"
            )

        yield call


async def test_ranges_are_read_and_continued_at_the_exact_byte(call: Call) -> None:
    parse = await call(
        "ranges.js",
        """['bytes 5-9/20', 'bytes 0-0/1', 'bytes 5-9/*', 'bytes */20', 'bytes 9-5/20', '', null]
           .map(m.parseContentRange)""",
    )
    assert parse[:3] == [
        {"start": 5, "stop": 10, "size": 20},
        {"start": 0, "stop": 1, "size": 1},
        {"start": 5, "stop": 10, "size": None},
    ]
    assert parse[3:] == [None] * 4
    rest = await call(
        "ranges.js",
        """[0, 4, 5, 6].map((received) => m.rangeOfTheRest({start: 5, stop: 10}, received))
           .concat(m.rangeOfTheRest({start: 5, stop: null}, 7))""",
    )
    assert rest == ["bytes=5-9", "bytes=9-9", None, None, "bytes=12-"]
    continues = await call(
        "ranges.js",
        """(() => {
          const broken = {extent: {start: 5, stop: 10, size: 20}, tag: '"a"'};
          const answer = (start, size, tag) => ({extent: {start, stop: 10, size}, tag});
          return [
            answer(7, 20, '"a"'), answer(6, 20, '"a"'), answer(7, 21, '"a"'),
            answer(7, 20, '"b"'), {extent: null, tag: '"a"'},
          ].map((each) => m.continues(broken, 2, each));
        })()""",
    )
    assert continues == [True, False, False, False, False]


STREAM = """(async () => {
  const whole = Uint8Array.from({length: 1000}, (_, index) => index %% 251);
  const asked = [];
  const answers = %(answers)s;
  const world = {
    fetch: async (url, {headers}) => {
      asked.push(`${url} ${headers.Range}`);
      const answer = answers[asked.length - 1] ?? {};
      const {status = 206, cut = Infinity, hang = false, tag = '"a"'} = answer;
      if (status === 0) throw new TypeError('no network');
      if (status !== 206) return new Response('{"error": {"code": "token_expired"}}', {status});
      const [, start, stop] = /bytes=(\\d+)-(\\d*)/.exec(headers.Range);
      const end = stop === '' ? 1000 : Number(stop) + 1;
      const last = Math.min(end, Number(start) + cut);
      const body = new ReadableStream({
        start(controller) {
          controller.enqueue(whole.slice(Number(start), last));
        },
        pull(controller) {
          if (last < end && hang) return new Promise(() => {});
          if (last < end) controller.error(new Error('cut'));
          else controller.close();
        },
      }, {highWaterMark: 0});
      const range = `bytes ${start}-${end - 1}/1000`;
      return new Response(body, {status, headers: {'Content-Range': range, ETag: tag}});
    },
    freshest: (url) => world.newest ?? url,
    renew: async () => { world.newest = 'fresh'; },
    fail: (url) => %(others)s && !world.failed.has(url) && Boolean(world.failed.add(url)),
    hasFailed: (url) => world.failed.has(url),
    failed: new Set(),
    news: () => new Promise(() => {}),
    tell: () => {},
    count: () => {},
    patienceMs: %(patience_ms)s,
    silenceMs: 300,
  };
  const abort = new AbortController();
  const wanted = {url: 'old', range: 'bytes=100-', signal: abort.signal};
  try {
    const response = await m.openLasting(wanted, world);
    const bytes = new Uint8Array(await response.arrayBuffer());
    const isRight = bytes.every((byte, index) => byte === whole[100 + index]);
    return {asked, status: response.status, length: bytes.length, isRight};
  } catch (error) {
    return {asked, error: String(error)};
  }
})()"""


async def play(call: Call, answers: str, patience_ms: int = 60_000, *, others: bool = False) -> Any:
    facts = {"answers": answers, "patience_ms": patience_ms, "others": str(others).lower()}
    return await call("lasting-stream.js", STREAM % facts)


async def test_a_stream_is_renewed_and_resumed_without_a_byte_lost_or_doubled(call: Call) -> None:
    played = await play(call, "[{cut: 300}, {status: 401}, {cut: 1}, {status: 0}, {}]")
    assert played == {
        "asked": [
            "old bytes=100-",
            "old bytes=400-999",
            "fresh bytes=400-999",
            "fresh bytes=401-999",
            "fresh bytes=401-999",
        ],
        "status": 206,
        "length": 900,
        "isRight": True,
    }


async def test_a_stream_ends_in_an_error_rather_than_in_wrong_bytes(call: Call) -> None:
    played = await play(call, """[{cut: 300}, {tag: '"b"'}]""")
    assert len(played["asked"]) == 2
    assert "error" in played


async def test_a_refusal_that_renewing_does_not_help_is_handed_on(call: Call) -> None:
    played = await play(call, "Array(9).fill({status: 403})")
    assert played["status"] == 403
    assert len(played["asked"]) == 4
    played = await play(call, "[{status: 404}]")
    assert (played["status"], len(played["asked"])) == (404, 1)


async def test_patience_with_a_worker_that_is_away_ends(call: Call) -> None:
    played = await play(call, "Array(99).fill({status: 503})", patience_ms=500)
    assert played["status"] == 503
    assert len(played["asked"]) > 1


@pytest.mark.parametrize("first", ["{status: 0}", "{status: 503}", "{status: 502}"])
async def test_with_other_workers_the_first_failure_leads_to_the_next(
    call: Call, first: str
) -> None:
    played = await play(call, f"[{first}, {{}}]", others=True)
    assert played == {
        "asked": ["old bytes=100-", "fresh bytes=100-"],
        "status": 206,
        "length": 900,
        "isRight": True,
    }
    played = await play(call, f"[{{cut: 300}}, {first}, {{}}]", others=True)
    assert played["asked"] == ["old bytes=100-", "old bytes=400-999", "fresh bytes=400-999"]
    assert played["isRight"]
    alone = await play(call, f"[{{cut: 300}}, {first}, {{}}]")
    assert alone["asked"] == ["old bytes=100-", "old bytes=400-999", "old bytes=400-999"]


async def test_a_worker_that_falls_silent_is_left_for_another(call: Call) -> None:
    played = await play(call, "[{cut: 300, hang: true}, {}]", others=True)
    assert played["asked"] == ["old bytes=100-", "fresh bytes=400-999"]
    assert played["isRight"]
    alone = await play(call, "[{cut: 300, hang: true}, {}]")
    assert alone["asked"] == ["old bytes=100-", "old bytes=400-999"]
    assert alone["isRight"]


async def test_workers_that_failed_are_named_for_a_while_and_only_where_there_are_others(
    call: Call,
) -> None:
    found = await call(
        "workers.js",
        """(() => {
          let now = 1000;
          const failures = new m.Failures(() => now);
          const url = (name) => `https://${name}/stream/-1001/7/film.mp4?token=t&hold=0`;
          const first = [failures.note(url('a')), failures.note(url('a')), failures.note(url('b'))];
          const lonely = failures.note('https://c/stream/-1001/7?token=t');
          const other = failures.note('/files/-1001/7/film.mp4?hold=0');
          const both = failures.query(2);
          const has = [url('a'), url('c')].map((each) => failures.has(each));
          now += 30_000;
          return [first, lonely, other, both, has, failures.query(0), failures.note(url('a'))];
        })()""",
    )
    assert found == [
        [True, False, True],
        False,
        False,
        "attempt=2&avoid=https%3A%2F%2Fa&avoid=https%3A%2F%2Fb",
        [True, False],
        "attempt=0",
        True,
    ]
    workers = await call(
        "workers.js",
        """['https://w.example/stream/-1001/7/a?x', 'https://w.example/one/stream/-1001/7?x',
            'https://w.example:81/thumbnail/-1/7?token=t',
            'https://api.telegram.org/file/bot1/a.mp4'].map(m.workerOf)""",
    )
    assert workers[:3] == [
        "https://w.example",
        "https://w.example/one",
        "https://w.example:81",
    ]
    assert workers[3] is None


async def test_the_time_that_waking_takes_is_told_as_it_is(call: Call) -> None:
    told = await call(
        "waking.js",
        """[1_500, 30_000, 60_999, 61_000].map((ms) => m.progressAfter(ms))
           .map((progress) => [progress, m.describeWaking(progress, 'Next.')])""",
    )
    assert [progress["seconds"] for progress, _ in told] == [1, 30, 60, 61]
    assert [progress["share"] for progress, _ in told] == [pytest.approx(1 / 60), 0.5, 1, None]
    assert "about a minute" in told[1][1]
    assert "30\N{NO-BREAK SPACE}s so far. Next." in told[1][1]
    assert told[3][1].startswith("It takes longer than usual: 61")


async def test_the_state_is_looked_at_again_only_while_films_wait_for_it(call: Call) -> None:
    found = await call(
        "state-panel.js",
        """[['well', 'note'], ['well', 'limits'], ['well', 'stops'], ['waking', 'note']]
           .map(([state, severity]) => m.nextLookIn({workers: [{state}], problems: [{severity}]}))
           .concat([['well'], ['waking', 'wrong'], ['wrong', 'away']].map((states) =>
             m.isWorthWaitingFor(states.map((state) => ({state})))))""",
    )
    assert found == [None, None, 5, 5, True, True, False]


async def test_delays_grow_and_keep_to_what_the_server_asks(call: Call) -> None:
    delays = await call(
        "trouble.js",
        """[0, 1, 2, 9].map((attempt) => m.delayAfter(attempt, 0, 0.5))
           .concat(m.delayAfter(0, 7, 1))""",
    )
    assert delays == [400, 800, 1600, 4000, 7000]
    retry = await call(
        "trouble.js",
        """['3', null, 'soon', 'Thu, 01 Jan 1970 00:00:09 GMT', '-1']
           .map((header) => m.parseRetryAfter(header, 4000))""",
    )
    assert retry == [3, 0, 0, 5, 0]
    passing = await call("trouble.js", "[0, 429, 500, 503, 401, 404, 416].map(m.isPassing)")
    assert passing == [True, True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("trouble", "online", "words"),
    [
        (
            "{code: 'flood_wait', status: 429, retryAfter: 12}",
            "true",
            "Telegram asks to wait 12 s…",
        ),
        ("{code: 'unknown', status: 502, retryAfter: 0}", "true", "Waking the worker…"),
        ("{code: 'worker_unreachable', status: 503, retryAfter: 3}", "true", "Waking the worker…"),
        ("{code: 'offline', status: 0, retryAfter: 0}", "true", "Reconnecting…"),
        ("{code: 'offline', status: 0, retryAfter: 0}", "false", "No connection."),
    ],
)
async def test_why_the_film_stands_still_is_said(
    call: Call, trouble: str, online: str, words: str
) -> None:
    said = await call("trouble.js", f"m.describeTrouble({trouble}, {online})")
    assert said.startswith(words)


async def test_a_film_is_resumed_unless_it_is_barely_begun_or_over(call: Call) -> None:
    at = await call(
        "positions.js",
        """[[14, 7200], [15, 7200], [6900, 7200], [7000, 7200], [75, 90], [NaN, 90]]
           .map(([at, duration]) => m.resumeAt({at, duration})).concat(m.resumeAt(undefined))""",
    )
    assert at == [0, 15, 6900, 0, 0, 0, 0]
    kept = await call(
        "positions.js",
        """(() => {
          let all = {};
          for (let index = 0; index < 400; index += 1)
            all = m.withPosition(all, `1/${index}`, {at: index, duration: 1000});
          all = m.withPosition(all, '1/200', {at: 5, duration: 9});
          return [Object.keys(all).length, Object.keys(all).at(-1), '1/0' in all, all['1/200'].at];
        })()""",
    )
    assert kept == [300, "1/200", False, 5]


async def test_only_the_cards_near_the_window_exist(call: Call) -> None:
    columns = await call(
        "rows.js", "[[1360, 250, 24], [362, 140, 12], [100, 250, 24]].map((a) => m.columnsIn(...a))"
    )
    assert [each["columns"] for each in columns] == [5, 2, 1]
    assert columns[1]["width"] == 175
    view = "{columns: 5, width: 250, columnGap: 24, rowHeight: 100}"
    seen = await call(
        "rows.js",
        f"""[0, 5000, 999999].map((top) =>
            m.cardsInView(10000, {{top, height: 800, margin: 100}}, {view}))""",
    )
    assert seen == [
        {"first": 0, "last": 45},
        {"first": 245, "last": 295},
        {"first": 10000, "last": 10000},
    ]
    assert await call("rows.js", f"m.placeOf(7, {view})") == {"x": 548, "y": 100}


async def test_the_arrow_keys_walk_the_grid_and_stop_at_its_edges(call: Call) -> None:
    goals = await call(
        "rows.js",
        """[['ArrowRight', 3], ['ArrowLeft', 0], ['ArrowDown', 1], ['ArrowDown', 9], ['ArrowUp', 6],
            ['ArrowUp', 1], ['Home', 9], ['End', 0], ['x', 4], ['ArrowRight', 11]]
           .map(([key, index]) => m.neighbourOf(key, index, 12, 5))""",
    )
    assert goals == [4, 0, 6, 11, 1, 1, 0, 11, 4, 11]


async def test_a_newer_first_page_keeps_what_was_fetched_behind_it(call: Call) -> None:
    merged = await call(
        "listing.js",
        """(() => {
          const files = (...ids) => ids.map((message_id) => ({chat_id: 1, message_id}));
          const ids = (list) => list && list.map((file) => file.message_id);
          return [
            ids(m.mergeFirstPage(files(5, 4, 3, 2, 1), files(6, 5, 4))),
            ids(m.mergeFirstPage(files(5, 4, 3, 2, 1), files(5, 3))),
            ids(m.mergeFirstPage(files(2, 1), files(9, 8))),
            ids(m.mergeFirstPage(files(2, 1), [])),
            ids(m.withoutKnown(files(5, 4, 3), files(3, 2, 1))),
          ];
        })()""",
    )
    assert merged == [[6, 5, 4, 3, 2, 1], [5, 3, 2, 1], None, None, [2, 1]]


async def test_zooming_keeps_the_point_under_the_finger_and_the_picture_in_sight(
    call: Call,
) -> None:
    view = await call("zoom.js", "m.zoomAt({scale: 1, x: 0, y: 0}, 2, {x: 100, y: -50})")
    assert view == {"scale": 2, "x": -100, "y": 50}
    limits = await call(
        "zoom.js", "[0.1, 99].map((by) => m.zoomAt({scale: 2, x: 0, y: 0}, by, {x: 0, y: 0}).scale)"
    )
    assert limits == [1, 8]
    kept = await call(
        "zoom.js",
        """m.keepInSight({scale: 2, x: 900, y: 900}, {width: 400, height: 300},
                         {width: 600, height: 800})""",
    )
    assert kept == {"scale": 2, "x": 100, "y": 0}
    fitted = await call(
        "zoom.js",
        """[m.fittedSize({width: 4000, height: 1000}, {width: 1000, height: 800}),
            m.fittedSize({width: 40, height: 10}, {width: 1000, height: 800})]""",
    )
    assert fitted == [{"width": 1000, "height": 250}, {"width": 40, "height": 10}]


async def test_each_platform_gets_links_that_its_players_understand(call: Call) -> None:
    links = await call(
        "open-in.js",
        """['android', 'ios', 'mac', 'desktop'].map((platform) => m.playersOn(platform)
            .map(({name, link}) => [name, link('https://g.example/v/aB-9?x=1', 'A & B')]))""",
    )
    android, ios, mac, desktop = (dict(each) for each in links)
    assert list(android) == ["VLC", "mpv", "MX Player"]
    assert android["MX Player"] == (
        "intent://g.example/v/aB-9?x=1#Intent;scheme=https;type=video/*;"
        "package=com.mxtech.videoplayer.ad;S.title=A%20%26%20B;end"
    )
    quoted = "https%3A%2F%2Fg.example%2Fv%2FaB-9%3Fx%3D1"
    assert ios == {
        "VLC": f"vlc-x-callback://x-callback-url/stream?url={quoted}",
        "Infuse": f"infuse://x-callback-url/play?url={quoted}",
    }
    assert list(mac) == ["VLC", "mpv", "Infuse"]
    assert desktop == {
        "VLC": "vlc://https://g.example/v/aB-9?x=1",
        "mpv": "mpv://play/aHR0cHM6Ly9nLmV4YW1wbGUvdi9hQi05P3g9MQ",
    }
    platforms = await call(
        "open-in.js",
        """[['Mozilla (Linux; Android 16)', 5], ['iPhone', 5], ['Macintosh', 5], ['Macintosh', 0],
            ['X11; Linux', 0]].map((device) => m.platformOf(...device))""",
    )
    assert platforms == ["android", "ios", "ios", "mac", "desktop"]


async def test_keys_mean_one_thing_with_a_film_and_another_with_a_picture(call: Call) -> None:
    keys = "[' ', 'K', 'ArrowLeft', '5', 'n', 'c', '?', '+', 'x', 'Tab']"
    film = await call("shortcuts.js", f"{keys}.map((key) => m.actionOf(key, true) ?? null)")
    assert film == ["toggle", "toggle", "back5", "jump", "next", "captions", "help"] + 3 * [None]
    picture = await call("shortcuts.js", f"{keys}.map((key) => m.actionOf(key, false) ?? null)")
    assert picture == [None, None, "previous", None, "next", None, "help", "zoomIn", None, None]


async def test_what_is_buffered_ahead_is_counted_from_the_position(call: Call) -> None:
    ahead = await call(
        "buffered.js",
        """(() => {
          const parts = [[0, 5], [10, 20]];
          const buffered = {length: 2, start: (at) => parts[at][0], end: (at) => parts[at][1]};
          return [1, 5, 7, 9.9, 20].map((position) => m.bufferedAhead(buffered, position));
        })()""",
    )
    assert ahead == pytest.approx([4, 0, 0, 10.1, 0])


# What browsers say of themselves: the first knows MKV, the second does not, the third knows all.
BROWSERS_SAY = """({
  chromium: {canOpen: (type) => /mp4|webm|matroska/.test(type), canDecode: async () => false},
  safari: {canOpen: (type) => /mp4|webm/.test(type), canDecode: async () => false},
  able: {canOpen: () => true, canDecode: async () => true},
})"""
HEADS = """({
  ac3: head('video/x-matroska', 'avc1.64001f', 'ac-3'),
  both: head('video/x-matroska', 'avc1.64001f', 'A_DTS', 'mp4a.40.2'),
  hevc: head('video/mp4', 'hvc1.1.6.L93.B0', 'mp4a.40.2'),
  mute: head('video/mp4', 'hvc1.1.6.L93.B0'),
  nothing: head('video/x-matroska', 'V_MPEG4/ISO/ASP', 'ec-3'),
  fine: head('video/x-matroska', 'avc1.64001f', 'mp4a.40.2'),
  webm: head('video/x-matroska', 'vp9', 'opus'),
  strange: head('video/mp4', 'V_STRANGE', 'A_STRANGE'),
  avi: {type: 'video/x-msvideo', tracks: []},
  wmv: {type: 'application/octet-stream', tracks: []},
  mislabelled: head('video/mp4', 'avc1.64001f', 'mp4a.40.2'),
})"""
SAY = """(async () => {
  const head = (type, picture, ...sounds) => ({type, tracks: [
    {kind: 'video', codec: picture}, ...sounds.map((codec) => ({kind: 'audio', codec}))]});
  const heads = %(heads)s;
  const browsers = %(browsers)s;
  const names = {wmv: 'film.wmv', mislabelled: 'film.avi'};
  const say = (browser, name) => m.findObstacle(
    heads[name], {name: names[name] ?? 'film', mime_type: ''}, browsers[browser]);
  return Object.fromEntries(await Promise.all(
    Object.keys(heads).map(async (name) => [name, await say('%(browser)s', name)])));
})()"""


async def test_what_a_browser_lacks_is_named_and_nothing_that_may_play_is_refused(
    call: Call,
) -> None:
    facts = {"heads": HEADS, "browsers": BROWSERS_SAY}
    said = await call("codecs.js", SAY % {**facts, "browser": "chromium"})
    lacks = "Your browser has no decoder for "
    assert said == {
        "ac3": lacks + "AC-3 sound. The picture would play without sound.",
        "both": None,  # it plays the sound that it knows
        "hevc": lacks + "HEVC (H.265) pictures. Only the sound would play.",
        "mute": lacks + "HEVC (H.265) pictures.",
        "nothing": lacks + "MPEG-4 (DivX, Xvid) pictures or E-AC-3 sound.",
        "fine": None,
        "webm": None,
        "strange": None,
        "avi": "Your browser cannot open AVI files.",
        "wmv": "Your browser cannot open WMV files.",
        "mislabelled": None,  # the head counts, not the name
    }
    said = await call("codecs.js", SAY % {**facts, "browser": "safari"})
    assert said["fine"] == said["ac3"] == "Your browser cannot open MKV files."
    assert said["webm"] is None
    said = await call("codecs.js", SAY % {**facts, "browser": "able"})
    assert set(said.values()) == {None}


async def test_only_doubtful_files_are_looked_into(call: Call) -> None:
    doubtful = await call(
        "codecs.js",
        """[['a.mp4', 'video/mp4'], ['a', 'video/webm'], ['a.mp4', 'application/octet-stream'],
            ['a.MKV', 'application/octet-stream'], ['a', 'video/x-matroska'],
            ['a.avi', 'video/mp4'], ['a', 'video/x-ms-wmv'], ['a.mov', 'video/quicktime'],
            ['a.mp3', 'audio/mpeg'], ['', '']]
           .map(([name, mime_type]) => m.isDoubtful({name, mime_type},
             (type) => /mp4|webm|mpeg|matroska/.test(type)))""",
    )
    assert doubtful == [False, False, False, True, True, True, True, True, False, False]


async def test_the_frame_of_a_moment_is_the_last_one_before_it(call: Call) -> None:
    frames = await call(
        "storyboard.js",
        """[0, 1.9, 2, 5, 6, 99].map((at) => m.frameAt([[0.5, 0, 0], [2, 160, 0], [6, 0, 90]], at))
           .concat([m.frameAt([[3, 7, 8]], 0)])""",
    )
    first, second, third = [0.5, 0, 0], [2, 160, 0], [6, 0, 90]
    assert frames == [first, first, second, second, third, third, [3, 7, 8]]
    sizes = await call(
        "storyboard.js",
        """[[320, 180], [100, 230], [80, 40]].map(([width, height]) =>
           m.sizeIn({width, height}, {width: 216, height: 160}))""",
    )
    assert [(each["width"], each["height"]) for each in sizes] == [(216, 122), (70, 160), (80, 40)]


async def test_subtitles_are_chosen_as_they_were_for_the_film_before(call: Call) -> None:
    listed = """const listed = [['de', 'German'], ['en', 'English'], ['en', 'Forced', true],
      ['pt-BR', 'Portuguese (Brazil)'], ['und', 'Commentary']]
      .map(([language, label, forced = false]) => ({language, label, forced}));"""
    places = await call(
        "subtitles.js",
        f"""{{ {listed}
          const choice = (language, label = '', forced = false) => ({{language, label, forced}});
          return [null, 'off', choice('en', 'English'), choice('en', 'English SDH'),
            choice('en', 'x', true), choice('pt-PT'), choice('und', 'Commentary'),
            choice('und', 'Other'), choice('fr')].map((each) => m.placeOf(listed, each)); }}""",
    )
    assert places == [-1, -1, 1, 1, 2, 3, 4, -1, -1]
    first = await call(
        "subtitles.js",
        f"""{{ {listed}
          return [['fr', 'pt'], ['en-GB'], ['fr']].map((each) => m.firstPlace(listed, each))
            .concat(m.firstPlace([], ['en'])); }}""",
    )
    assert first == [3, 1, 0, -1]
    told = await call(
        "subtitles.js",
        """[[{kind: 'text', language: 'ger', name: ''}, {kind: 'text', language: '', name: 'Signs'},
             {kind: 'audio', language: 'en', name: ''}], []].map(m.describeEmbedded)""",
    )
    assert told == ["Inside the file, shown by players such as VLC: German, Signs.", ""]


async def test_what_is_wrong_with_a_part_is_in_the_facts(call: Call) -> None:
    facts = await call(
        "format.js",
        """[null, ['missing', [2]], ['missing', [1, 4]], ['alone', []], ['too_many', []], ['x', []]]
           .map((split) => m.formatFacts({size: 1000, date: 0,
             split: split && {problem: split[0], missing: split[1]}}).split(' · 1 KB')[0])""",
    )
    assert facts[0].startswith("1 KB")
    assert facts[1:5] == [
        *("part 2 is missing", "parts 1, 4 are missing"),
        *("the other parts are missing", "too many parts"),
    ]
    assert facts[5].startswith("1 KB")


# -- Albums, queue, documents -------------------------------------------------------------------

SONGS = """const song = (message_id, album = null) => ({ chat_id: -1, message_id, album });
const ids = (files) => files.map((file) => file.message_id);
"""


async def test_an_album_is_what_stands_together_in_its_own_order(call: Call) -> None:
    groups = await call(
        "albums.js",
        f"""(() => {{ {SONGS}
          const other = {{ ...song(3, 'a'), chat_id: -2 }};
          const list = [song(9), song(8, 'b'), song(7, 'b'), song(6, 'a'), other, song(2, 'b')];
          return m.groupsOf(list).map(ids);
        }})()""",
    )
    assert groups == [[9], [7, 8], [6], [3], [2]]
    nouns = await call(
        "albums.js",
        "[['image', 'image'], ['image', 'video']].map((kinds) =>"
        " m.nounOf(kinds.map((kind) => ({ kind }))))",
    )
    assert nouns == ["picture", "file"]


QUEUE = (
    SONGS
    + """
const pages = [[song(9), song(8)], [song(7, 'a'), song(6, 'a')], [song(5)]];
const asked = [];
const fetchPage = async (cursor) => {
  const index = Number(cursor ?? 0);
  asked.push(index);
  const next = index + 1 < pages.length ? String(index + 1) : null;
  return { files: pages[index], next };
};
const walk = async (queue, id, step, isRound = false) => {
  const seen = [];
  let at = `-1/${id}`;
  while (seen.length < 8) {
    const next = await queue.neighbour(at, step, isRound);
    if (!next) break;
    at = `-1/${next.message_id}`;
    seen.push(next.message_id);
  }
  return seen;
};
"""
)


async def test_the_queue_follows_the_list_and_plays_an_album_in_its_own_order(call: Call) -> None:
    played = await call(
        "queue.js",
        f"""(async () => {{ {QUEUE}
          const queue = new m.Queue(song(9), fetchPage);
          await queue.begin();
          const foreign = new m.Queue(song(1), fetchPage);
          return {{
            onwards: await walk(queue, 9, 1), back: await walk(queue, 6, -1), asked: asked.slice(),
            round: await walk(queue, 7, 1, true),
            backwards: await queue.neighbour('-1/9', -1, true),
            following: ids(queue.after('-1/6', 2)), unlisted: await walk(foreign, 1, 1),
          }};
        }})()""",
    )
    assert played["onwards"] == [8, 6, 7, 5]
    assert played["back"] == [8, 9]
    assert played["asked"] == [0, 1, 2]  # each page once
    assert played["round"] == [5, 9, 8, 6, 7, 5, 9, 8]
    assert played["backwards"]["message_id"] == 5
    assert played["following"] == [7, 5]
    assert played["unlisted"] == [9, 8, 6, 7, 5]


async def test_a_shuffled_queue_plays_each_song_once_and_can_be_put_in_order(call: Call) -> None:
    orders = await call(
        "queue.js",
        f"""(async () => {{ {QUEUE}
          const queue = new m.Queue(song(8), fetchPage, () => 0);
          await queue.begin();
          await queue.shuffle(true, '-1/6');
          const mixed = await walk(queue, 6, 1);
          await queue.shuffle(false, '-1/6');
          return [mixed, await walk(queue, 6, 1)];
        }})()""",
    )
    assert sorted(orders[0]) == [5, 7, 8, 9]
    assert orders[0] != [7, 5]
    assert orders[1] == [7, 5]


async def test_documents_are_shown_as_what_they_are(call: Call) -> None:
    ways = await call(
        "documents.js",
        """[['application/pdf', 'a.pdf'], ['text/html', 'a.html'], ['application/json', 'a'],
            ['application/octet-stream', 'Film.en.srt'], ['application/atom+xml', 'a'],
            ['application/zip', 'a.zip'], ['application/octet-stream', 'a.pdf']]
           .map(([mime_type, name]) => m.wayToShow({ mime_type, name }))""",
    )
    assert ways == ["pdf", "text", "text", "text", "text", None, None]
    texts = await call(
        "documents.js",
        """[[0xd0, 0x96, 0xc3, 0xa9], [0xef, 0xbb, 0xbf, 0x61], [0x61, 0xd0], [0xe9, 0x21],
            [0xff, 0xfe, 0x16, 0x04], [0xfe, 0xff, 0x04, 0x16], [0x50, 0x4b, 0x00, 0x01]]
           .map((bytes) => m.decodeText(new Uint8Array(bytes)))""",
    )
    assert texts == ["Жé", "a", "a", "é!", "Ж", "Ж", None]
    assert await call(
        "documents.js",
        "['A/b.pdf', '..'].map((name) => m.tabAddress({ chat_id: -1, message_id: 2, name }))",
    ) == ["/files/-1/2/A_b.pdf", "/files/-1/2"]


# -- Qualities --------------------------------------------------------------------------------


async def test_the_quality_that_was_chosen_is_found_among_those_there_are(call: Call) -> None:
    nearest = await call(
        "qualities.js",
        """['1080', '720', '700', '144'].map((each) => m.nearestHeight([720, 480, 360], each))""",
    )
    assert nearest == [720, 720, 480, 360]
    kept = await call(
        "qualities.js",
        """[
          [['avc1.64001f', 720], ['avc1.4d401e', 360], ['av01.0.01M.08', 360]],
          [['avc1.64001f', 720, 9], ['hvc1.1.6.L93', 720, 4]],
          [],
        ].map((levels) => m.levelsOfOneKind(levels.map(([videoCodec, height, bitrate = 1]) =>
            ({videoCodec, height, bitrate}))).map((level) => level.videoCodec + level.height))""",
    )
    assert kept == [["avc1.64001f720", "avc1.4d401e360"], ["hvc1.1.6.L93720"], []]
    are_playlists = await call(
        "qualities.js",
        """['https://w/a/hls/-1001/7/master.m3u8?token=x', 'https://w/hls/-1001/7/99.m3u8',
            'https://w/stream/-1001/7/hls.m3u8?token=x', 'https://w/stream/-1001/7/film.mp4']
           .map(m.isPlaylist)""",
    )
    assert are_playlists == [True, True, False, False]
    urls = await call(
        "qualities.js",
        r"""['480', '720', '100'].map((each) => m.levelUrl(
          '#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9,CODECS="avc1,mp4a",RESOLUTION=1280x720\n' +
          '12.m3u8?token=x\n#EXT-X-STREAM-INF:BANDWIDTH=5,RESOLUTION=640x360\n13.m3u8?token=x\n',
          'https://w/hls/-1/7/master.m3u8?token=x', each))""",
    )
    assert urls == [f"https://w/hls/-1/7/{number}.m3u8?token=x" for number in (13, 12, 13)]


async def test_qualities_are_named_as_people_name_them(call: Call) -> None:
    menus = await call(
        "qualities.js",
        """[
          {chosen: 'auto', isOriginal: false, width: 1280, height: 720},
          {chosen: 'auto', isOriginal: true, width: 1280, height: 720},
          {chosen: 'auto', isOriginal: false, width: 0, height: 0},
          {chosen: '1080', isOriginal: false, width: 640, height: 360},
          {chosen: 'original', isOriginal: true, size: 0, width: 0, height: 0},
          {chosen: '640', heights: [1280, 640], isOriginal: false, width: 360, height: 640},
        ].map((state) => m.optionsOf({heights: [720, 360], size: 5, ...state},
            (bytes) => `${bytes} B`).map((each) => (each.isChosen ? '*' : '') + each.text))""",
    )
    assert menus == [
        ["*Auto · 720p", "720p", "360p", "Original · 5 B"],
        ["*Auto · Original", "720p", "360p", "Original · 5 B"],
        ["*Auto", "720p", "360p", "Original · 5 B"],
        ["Auto", "*720p", "360p", "Original · 5 B"],
        ["Auto", "720p", "360p", "*Original"],
        ["Auto", "720p", "*360p", "Original · 5 B"],
    ]


async def test_a_choice_of_quality_counts_where_nothing_can_be_kept(call: Call) -> None:
    """A player in a sandboxed frame has no storage; whatever stands there may be anybody's."""
    found = await call(
        "qualities.js",
        """(() => {
          localStorage.setItem('rangegram.quality', '<script>');
          const found = [m.recallQuality()];
          const { getItem, setItem } = Storage.prototype;
          Storage.prototype.getItem = Storage.prototype.setItem = () => { throw new Error(); };
          found.push(m.recallQuality());
          m.rememberQuality('original');
          found.push(m.recallQuality());
          Object.assign(Storage.prototype, { getItem, setItem });
          return found;
        })()""",
    )
    assert found == ["auto", "auto", "original"]
