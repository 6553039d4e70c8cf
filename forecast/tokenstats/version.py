"""The version of the statistics, apart from their code so that planning needs no torch."""

# Part of every result's address: raise it when a change can alter a number.
STATISTICS_VERSION = 1
