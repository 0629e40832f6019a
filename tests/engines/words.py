"""The words that the tiny model's tokenizer knows and that the tests talk in."""

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "region",
    "replica",
    "prefix",
    "block",
    "hold",
    "push",
    "forward",
    "match",
]
