"""Names itself as a service and then becomes it, so that no service ever runs that no file names (see services.py).

    python -I -S launch.py SERVICE.JSON NAME URL LOCK TOLD COMMAND...

Whoever starts it may be killed at any moment: LOCK, a handle of `start.lock`, is held until the name is written. What
keeps COMMAND from running is written to the handle TOLD; otherwise nothing is. Standard library alone: it starts at once.
"""

import json
import os
import sys


def main(record: str, name: str, url: str, lock: str, told: str, *command: str) -> None:
    """Write `record`, then become `command`; both handles are closed by that."""
    for handle in (lock, told):
        os.set_inheritable(int(handle), False)
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as stat:
        born = stat.read().rpartition(")")[2].split()[19]
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as boot_id:
        boot = boot_id.read().strip()
    half = f"{record}.{os.getpid()}.tmp"
    with open(half, "w", encoding="utf-8") as file:
        json.dump({"name": name, "pid": os.getpid(), "born": born, "url": url, "boot": boot}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(half, record)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.unlink(record)
        os.write(int(told), str(error).encode())
        os._exit(127)


if __name__ == "__main__":
    main(*sys.argv[1:])
