#!/usr/bin/env python3
"""Write the simple case mappings of Unicode as C tables: kernels/case_table.h.

    python python/case_table.py kernels/case_table.h

A simple mapping takes one code point to one. Python knows the full mappings, where some letters become several: of such
a letter the simple mapping is its title case where that is one code point (U+1FB3), else itself (sharp s), but for
U+0130, whose lower case is i. A row is a run of code points, all with one distance: first, last, step (1 or 2), distance.
"""

import argparse
import sys
import unicodedata


def simple_upper(c):
    upper, title = c.upper(), c.title()
    return upper if len(upper) == 1 else title if len(title) == 1 else c


def simple_lower(c):
    lower = c.lower()
    return lower if len(lower) == 1 else "i" if c == "\u0130" else c


def runs(mapping):
    pairs = []
    for point in range(0x110000):
        if 0xD800 <= point < 0xE000:
            continue
        to = ord(mapping(chr(point)))
        if to != point:
            pairs.append((point, to - point))
    rows = []
    for point, distance in pairs:
        if rows:
            first, last, step, old = rows[-1]
            gap = point - last
            if old == distance and gap in (1, 2) and (first == last or gap == step):
                rows[-1] = (first, point, gap, old)
                continue
        rows.append((point, point, 1, distance))
    return rows


def table(name, rows):
    lines = [f"static const case_run {name}[] = {{"]
    line = "   "
    for row in rows:
        text = " {%#x, %#x, %d, %d}," % row
        if len(line) + len(text) > 118:
            lines.append(line)
            line = "   "
        line += text
    return "\n".join([*lines, line, "};"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output")
    path = parser.parse_args().output
    text = f"""/* Made by python/case_table.py from Unicode {unicodedata.unidata_version}: do not edit. */
#ifndef LAP_CASE_TABLE_H
#define LAP_CASE_TABLE_H

#include <stdint.h>

/* Code points first, first + step, ... last become themselves + distance. */
typedef struct case_run {{
    uint32_t first, last;
    int32_t step, distance;
}} case_run;

{table("case_upper", runs(simple_upper))}

{table("case_lower", runs(simple_lower))}

#endif
"""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit(main())
