"""Stand-in for the search for libraries in C."""


def find_library(name):
    return None
