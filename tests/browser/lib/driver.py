"""What every Python driver is made of: options, JSON lines, one deadline for all, an orderly end.

The same manners as the Node drivers: events as JSON lines, the result last; exit code 0 it worked, 1 it did not.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import threading

PATTERN_WIDTH, PATTERN_HEIGHT = 640, 480
_COLOURS = ((200, 40, 40), (40, 180, 40), (40, 60, 200), (210, 200, 40))


def options(description, **defaults):
    """Options as `--name value`, each of the type of its default."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), default=default, type=type(default))
    return parser.parse_args()


def emit(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def finish(fields):
    emit("result", **fields)
    # Threads of media libraries may hang at the end; nothing of theirs is worth waiting for.
    os._exit(0 if fields.get("ok") else 1)


async def lasting(seconds):
    """Returns after `seconds`, or for 0 when standard input is closed."""
    if seconds > 0:
        await asyncio.sleep(seconds)
        return
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(4096):
        pass


def on_thread(function, *arguments):
    """Runs `function` on a thread of its own, which nobody waits for at the end. Returns a future."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def settle(method, value):
        if not future.done():
            method(value)

    def work():
        try:
            result = function(*arguments)
        except BaseException as error:  # carried to whoever awaits the future
            loop.call_soon_threadsafe(settle, future.set_exception, error)
        else:
            loop.call_soon_threadsafe(settle, future.set_result, result)

    threading.Thread(target=work, daemon=True).start()
    return future


def run(deadline_s, main):
    """Runs the coroutine function `main`, which returns the fields of the result."""

    async def guarded():
        task = asyncio.ensure_future(main())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            return {"ok": True, **await asyncio.wait_for(task, deadline_s)}
        except asyncio.TimeoutError:
            return {"ok": False, "why": f"not done after {deadline_s} s"}
        except asyncio.CancelledError:
            return {"ok": False, "why": "ended by a signal"}
        except Exception as error:  # the caller sees one line, whatever broke
            return {"ok": False, "why": f"{type(error).__name__}: {error}"}

    finish(asyncio.run(guarded()))


def pattern(number, width=PATTERN_WIDTH, height=PATTERN_HEIGHT):
    """RGB bytes of picture `number`: red, green, blue and yellow quarters, and a white bar that moves down."""
    half = width // 2
    rows = [bytes(_COLOURS[0]) * half + bytes(_COLOURS[1]) * (width - half)] * (height // 2)
    rows += [bytes(_COLOURS[2]) * half + bytes(_COLOURS[3]) * (width - half)] * (height - height // 2)
    thick = height // 12
    top = (number * 4) % (height - thick)
    rows[top : top + thick] = [b"\xff" * (3 * width)] * thick
    return b"".join(rows)


class Watcher:
    """Judges pictures by their content. Fed with small RGB copies of 16 by 12 pixels."""

    WIDTH, HEIGHT = 16, 12

    def __init__(self):
        self.frames = 0
        self.moved = 0
        self._before = None
        self._last = None

    def see(self, data, line_size):
        rows = [data[y * line_size : y * line_size + self.WIDTH * 3] for y in range(self.HEIGHT)]
        pixels = b"".join(rows)
        self.frames += 1
        # Compared with the last picture that differed, so that slow movement counts as well.
        if self._before is None or max(abs(a - b) for a, b in zip(pixels, self._before)) > 40:
            self.moved += 1
            self._before = pixels
        self._last = rows

    def quarters(self):
        """Mean colours of the four quarters, row by row."""
        if self._last is None:
            return []
        found = []
        for y0 in (0, self.HEIGHT // 2):
            for x0 in (0, self.WIDTH // 2):
                pixels = [
                    self._last[y][x * 3 : x * 3 + 3]
                    for y in range(y0, y0 + self.HEIGHT // 2)
                    for x in range(x0, x0 + self.WIDTH // 2)
                ]
                found.append([round(sum(p[c] for p in pixels) / len(pixels)) for c in range(3)])
        return found

    def report(self):
        quarters = self.quarters()
        return {
            "framesDecoded": self.frames,
            "moved": self.moved,
            "quarters": quarters,
            "looksLikePattern": looks_like_pattern(quarters),
            "looksLikeFakeCamera": bool(quarters) and all(g > r + 30 and g > b + 30 for r, g, b in quarters),
        }


def looks_like_pattern(quarters):
    """Whether each quarter leans to its colour; the white bar and the codec may shift it."""
    if len(quarters) != 4:
        return False
    red, green, blue, yellow = quarters
    return (
        red[0] > red[1] + 40
        and red[0] > red[2] + 40
        and green[1] > green[0] + 40
        and green[1] > green[2] + 40
        and blue[2] > blue[0] + 40
        and blue[2] > blue[1] + 40
        and yellow[0] > yellow[2] + 40
        and yellow[1] > yellow[2] + 40
    )
