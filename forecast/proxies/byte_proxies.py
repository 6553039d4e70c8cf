"""The 80 proxies over bytes instead of tokens, so that candidates with different tokenizers can be compared.

A mean over tokens depends on how a tokenizer cuts: the same model that reads a text in shorter pieces pays
fewer nats for each. Here every token is replaced by the bytes that it stands for, and the ten metrics and
eight weightings of `forecast.proxies` are computed over these bytes as they are over tokens elsewhere.

What a byte gets of a token of n bytes is chosen so that n of them make up the token again: nats add up, so
each has 1/n of them; probabilities and ranks multiply, so each has the n-th root. In the names of
`forecast.proxies`, all DOUBLE:
    logprob, top1_logprob   the token's / n, nats per byte; probabilities are their exponentials
    rank                    the token's rank ^ (1/n), to 12 digits: top-k accuracy asks rank <= k^n of a token
    h                       entropy / (n ln 256): of the 8 bits that a byte can hold. A token's own
                            uncertainty may exceed that of the n bytes which followed, so h may exceed 1
    f                       the token id's share of all bytes of candidate and task (not of its tokens)
    ce_mean, ce_sd          of -logprob over the bytes of the instance; ce_sd is 0 where all are equal to
                            12 digits
The score of an instance is `sum(c w m) / sum(c w)` over its tokens, c being the bytes of the token that
count, and `sum(c m) / sum(c)` where all weights are 0. So cross-entropy is nats per byte, and divided by ln 2
it is `bits_per_byte`: the same under any two tokenizers that give the text the same probability.

The others come nearer to each other but not together; docs/concepts/proxies.md has the figures.

Which bytes count: of each instance the last ones that *every* candidate has scored, so that all are compared
on the same text whatever the window. A token that straddles their beginning counts with the share of its
bytes behind it. A token without bytes of its own (a normaliser made several characters of one) is read
together with the next that has some, at the end with the one before: their nats add, their ranks multiply.
Where an instance's tokens stand for no bytes at all, its scores are null.

The top1_logprob of a token is spread over the bytes of the *expert's* token; how long the model's own choice
is, is not known.
"""

from forecast.proxies.token_proxies import METRICS, PROXIES, WEIGHTINGS, Proxy

BITS_PER_BYTE = "bits_per_byte"
_PREFIX = "byte_"


def byte_name(proxy: Proxy) -> str:
    """Column of a proxy's version over bytes, e.g. `byte_rank__uniform`."""
    return _PREFIX + proxy.name


BYTE_NAMES = tuple(byte_name(proxy) for proxy in PROXIES)


def byte_columns() -> str:
    """SQL column definitions: bits per byte and the 80."""
    return ",\n    ".join(f"{name} DOUBLE" for name in (BITS_PER_BYTE, *BYTE_NAMES))


def byte_lists() -> str:
    """SQL select list that gathers an instance's tokens by place: lists `c`, `m_METRIC`, `cw_WEIGHTING`."""
    columns = [("c", "counted")]
    columns += [(f"m_{m.name}", m.sql) for m in METRICS]
    columns += [(f"cw_{w.name}", f"counted * ({w.sql})") for w in WEIGHTINGS]
    return ",\n    ".join(f"list(({sql})::DOUBLE ORDER BY place) AS {name}" for name, sql in columns)


def byte_scores() -> str:
    """SQL select list of `bits_per_byte` and the 80 scores, from the lists of `byte_lists`."""
    bits = f"list_dot_product(c, m_cross_entropy) / list_sum(c) / ln(2) AS {BITS_PER_BYTE}"
    return ",\n    ".join([bits, *(_score(proxy) for proxy in PROXIES)])


def _score(proxy: Proxy) -> str:
    m, cw = f"m_{proxy.metric.name}", f"cw_{proxy.weighting.name}"
    weighted = f"list_dot_product({cw}, {m}) / list_sum({cw})"
    plain = f"list_dot_product(c, {m}) / list_sum(c)"
    return f"CASE WHEN list_sum({cw}) > 0 THEN {weighted} ELSE {plain} END AS {byte_name(proxy)}"
