"""Exact statistics of a candidate's full next-token distribution at each scored token.

Five numbers are enough for every proxy metric (see `forecast.proxies`): logprob, entropy, rank, ties and
top1_logprob. `fused.token_stats` is the one entry; `reference` computes the same in fp64, slowly, for tests.
"""
