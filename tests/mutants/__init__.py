"""One-line faults that the suite must see; ``python tests/mutants`` tries them."""
