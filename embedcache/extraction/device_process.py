"""One of the processes of `--devices`: an extraction whose configuration comes by stdin, and whose news goes to stdout.

Run as `python -m embedcache.extraction.device_process` by devices.py. A plain child and no `multiprocessing` worker, so
that a caller's script needs no `__main__` guard. Messages are JSON lines.
"""

import json
import os
import sys
import threading
from dataclasses import asdict
from typing import Any

from embedcache.errors import EmbedcacheError
from embedcache.extraction.devices import config_of, wait_for_end
from embedcache.extraction.job import extract
from embedcache.extraction.progress import Listener


def main() -> int:
    """Extract, and return the exit code."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not break the protocol

    def say(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")

    config = config_of(sys.stdin.readline())
    threading.Thread(target=wait_for_end, args=(sys.stdin,), daemon=True).start()
    try:
        report = extract(config, Listener(lambda line: say(tell=line), lambda p: say(progress=asdict(p))))
    except EmbedcacheError as error:
        say(error=str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 the parent tells it in one line; a traceback may hold paths
        say(error=f"unexpected {type(error).__name__}")
        return 70
    say(decoded=report.decoded)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
