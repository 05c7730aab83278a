# SPDX-License-Identifier: Apache-2.0
"""repack_wheel.py FILE.whl: packs the files of a wheel more tightly, with zopfli. Names, order and times stay.

The result is an ordinary zip: zopfli looks longer for the shortest form of what every zip program unpacks.
"""

import pathlib
import sys
import zipfile
import zlib

import zopfli.zlib


class Compressor:
    """What zipfile wants of zlib.compressobj, for a file that is written at once."""

    def __init__(self):
        self.data = b""

    def compress(self, data):
        self.data += data
        return b""

    def flush(self):
        packed = zopfli.zlib.compress(self.data, numiterations=40)[2:-4]  # without zlib's head and sum
        assert zlib.decompress(packed, -zlib.MAX_WBITS) == self.data
        return packed


def main():
    wheel = pathlib.Path(sys.argv[1])
    small = wheel.with_suffix(".small")
    zipfile._get_compressor = lambda *arguments: Compressor()  # the module has no public way
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(small, "w") as new:
        for one in old.infolist():
            new.writestr(one, old.read(one.filename), zipfile.ZIP_DEFLATED)
    small.replace(wheel)


if __name__ == "__main__":
    main()
