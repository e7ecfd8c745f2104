"""The golden comparison: the working tree gives, bit for bit, what a fixed commit gives.

    python tests/golden                              every case
    python tests/golden --only 'remove numerical'    those whose names match an expression

Stored hashes would hold for one processor only. So both versions are installed side by side, and on the same machine, at one
thread each, both run every case of `cases` on the tiny models of the tests. What a case leaves is compared: every tensor of
the model and of every file it saved (dtype, shape, SHA-256 of its bytes), which files there are, and every figure of
configurations and reports. Only seconds and versions may differ.

    cases        what is run, as plain data in the words of the baseline
    baseline     how the baseline runs it, frozen
    present      how the working tree runs it: the same, until a name changes
    renamed      which settings, values and keys changed their names since
    side         one version runs the cases, in a process of its own
    observation  what a case left, as dictionaries of plain values
    compare      where two such dictionaries differ
    installs     the two versions in directories of their own
"""
