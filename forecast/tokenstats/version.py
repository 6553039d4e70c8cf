"""The version of the statistics, apart from their code so that planning needs no torch."""

# Part of every result's address: raise it when a change can alter a number.
# 2: exp in base 2, blocks of at most 256 rows and oneDNN on CPUs; the last bits of the nats moved.
# 3: top1_id; units without it are not read any more.
STATISTICS_VERSION = 3
