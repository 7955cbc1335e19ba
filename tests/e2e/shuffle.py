# SPDX-License-Identifier: GPL-2.0-or-later
"""shuffle.py DIR SEED OPS WHO [PAUSE]: random operations on a few names in DIR.

What is written are lines that begin with WHO and are written once.  Errors are
part of the game: other hosts do the same in their replica of DIR.
"""
import ctypes
import errno
import os
import random
import sys
import time

TOP, SEED, OPS, WHO = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
PAUSE = float(sys.argv[5]) if len(sys.argv) > 5 else 0
FILES = ["a", "b", "c", "d"]
DIRS = ["x", "y"]
libc = ctypes.CDLL(None, use_errno=True)
rnd = random.Random(SEED)
lines = 0


def name():
    d = rnd.choice(["", "", "", "x/", "y/", "x/y/", "y/x/"])
    return os.path.join(TOP, d + rnd.choice(FILES))


def directory():
    return os.path.join(TOP, rnd.choice(["", "", "x/", "y/"]) + rnd.choice(DIRS))


def line():
    global lines
    lines += 1
    return f"{WHO}-{lines}\n"


def write(path, how):
    with open(path, how) as f:
        f.write(line())


def save():
    to = name()
    with open(to + "~" + WHO, "w") as f:
        f.write(line())
    os.rename(f.name, to)


def exchange(a, b):
    if libc.renameat2(-100, os.fsencode(a), -100, os.fsencode(b), 2):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    else:
        os.unlink(path)


OPERATIONS = [
    (4, lambda: write(name(), "w")),
    (4, lambda: write(name(), "a")),
    (3, save),
    (6, lambda: os.rename(name(), name())),
    (3, lambda: exchange(name(), name())),
    (3, lambda: os.link(name(), name())),
    (3, lambda: remove(name())),
    (2, lambda: os.mkdir(directory())),
    (1, lambda: remove(directory())),
    (2, lambda: os.rename(directory(), directory())),
    (1, lambda: exchange(directory(), directory())),
    (1, lambda: os.symlink(line().strip(), name())),
    (1, lambda: os.chmod(name(), rnd.choice([0o600, 0o640, 0o644]))),
]

for _ in range(OPS):
    try:
        rnd.choices([f for _, f in OPERATIONS], [w for w, _ in OPERATIONS])[0]()
    except OSError as e:
        if e.errno in (errno.EIO, errno.ENOTCONN, errno.ENOSPC, errno.EROFS):
            raise
    if PAUSE:
        time.sleep(rnd.random() * PAUSE)
