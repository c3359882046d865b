#!/usr/bin/env python3
"""Writes example jobs for the pipelines in `pipelines/`, made from the descriptions of Debian packages.

Usage:  python3 examples/generate.py [--count 200] [--to examples]

Needs a Debian or Ubuntu system with package lists that hold the long descriptions:

    apt-get update -o Acquire::Languages=en

Every file has one job a line, in landbridge's own form: a pipeline, a key that makes a repeated submit harmless,
metadata to route by, and an OpenAI chat request. Which packages are taken, and which region and customer a job has,
depends on the names of the packages alone: the same package lists give the same files.
"""

import argparse
import hashlib
import json
import pathlib
import re
import subprocess
import sys

SECTIONS = [
    "admin", "comm", "database", "devel", "editors", "education", "electronics", "games", "gnome", "graphics",
    "hamradio", "kde", "mail", "math", "net", "otherosfs", "science", "shells", "sound", "text", "utils", "vcs",
    "video", "web", "x11",
]  # fmt: skip

# The model that the work runs on before it is moved; a routed job's target names its own.
MODEL = "gpt-4o-mini"

CLASSIFY = (
    "You sort software packages into the sections of a distribution. Answer with exactly one of: "
    + ", ".join(SECTIONS)
    + ". Write the section alone, in lower case, without punctuation."
)
SUMMARIZE = (
    "You write the one-line summaries of a software catalogue. Summarize the package description in one sentence of at "
    "most 25 words, in plain English, without marketing."
)
EXTRACT = (
    "You extract facts from package descriptions. Answer with one JSON object and nothing else, with the keys "
    "name (string), purpose (string, one short sentence), programming_language (string, or unknown), "
    "features (array of at most 3 strings), has_graphical_interface (true or false)."
)

# Parts of packages rather than programs: their descriptions repeat those of the program.
DERIVED = re.compile(r"^(lib|python3?-|golang-|node-|ruby-|r-cran-|fonts-|task-)|-(doc|dev|dbg|data|common|dbgsym|l10n)$")

SHORTEST, LONGEST = 200, 4000


def apt_cache(*arguments):
    """The stanzas that apt-cache prints, as dictionaries."""
    command = ["apt-cache", "-o", "Acquire::Languages=en", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    for stanza in output.split("\n\n"):
        fields, name = {}, None
        for line in stanza.splitlines():
            if line.startswith(" ") and name:
                fields[name] += "\n" + line[1:]
            elif ":" in line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields


def number(*parts):
    """A number that these texts always have."""
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:8], "big")


def description(fields):
    """The short and the long description as running text, or None if apt has only the short one."""
    text = fields.get("Description-en", "")
    short, _, long = text.partition("\n")
    paragraphs = [" ".join(part.split()) for part in re.split(r"^\.$", long, flags=re.MULTILINE)]
    body = "\n\n".join(part for part in paragraphs if part)
    return f"{short}.\n\n{body}" if body else None


def packages(count):
    """`count` packages with their descriptions, taken from all sections in turn."""
    by_section = {section: set() for section in SECTIONS}
    for fields in apt_cache("dumpavail"):
        section = fields.get("Section", "").rpartition("/")[2]
        name = fields.get("Package", "")
        if section in by_section and not DERIVED.search(name):
            by_section[section].add(name)
    ordered = {section: sorted(names, key=lambda name: number("order", name)) for section, names in by_section.items()}
    # Some have no long description: ask for a few more than are needed.
    each = 2 * count // len(SECTIONS) + 10
    wanted = [name for names in ordered.values() for name in names[:each]]
    found = {fields["Package"]: fields for fields in apt_cache("show", "--no-all-versions", *wanted)}
    taken, texts = [], set()
    for place in range(each):
        for section in SECTIONS:
            fields = found.get(ordered[section][place]) if place < len(ordered[section]) else None
            text = description(fields) if fields else None
            if text and SHORTEST <= len(text) <= LONGEST and text not in texts:
                texts.add(text)
                taken.append((fields["Package"], section, text))
                if len(taken) == count:
                    return taken
    sys.exit(
        f"only {len(taken)} of {count} packages have a long description here; "
        "fetch them with: apt-get update -o Acquire::Languages=en"
    )


def job(pipeline, system, name, section, text):
    region = ["us", "us", "us", "us", "us", "us", "us", "eu", "eu", "apac"][number("region", name) % 10]
    customer = f"customer-{number('customer', name) % 40 + 1:04}"
    question = f"Package: {name}\nDescription: {text}"
    return {
        "pipeline": pipeline,
        "idempotency_key": f"{pipeline}/{name}",
        "metadata": {"package": name, "section": section, "region": region, "customer": customer},
        "body": {
            "model": MODEL,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="jobs a file")
    parser.add_argument("--to", type=pathlib.Path, default=pathlib.Path(__file__).parent, help="where the files go")
    options = parser.parse_args()
    kinds = [("package-classify", CLASSIFY), ("package-summary", SUMMARIZE), ("package-extract", EXTRACT)]
    taken = packages(options.count * len(kinds))
    for place, (pipeline, system) in enumerate(kinds):
        path = options.to / f"{pipeline}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for name, section, text in taken[place :: len(kinds)]:
                file.write(json.dumps(job(pipeline, system, name, section, text), ensure_ascii=False) + "\n")
        print(f"{path}: {options.count} jobs")


if __name__ == "__main__":
    main()
