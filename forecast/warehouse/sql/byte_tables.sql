-- The proxies over bytes (forecast/proxies/byte_proxies.py), beside those over tokens and never mixed with them.

CREATE TABLE byte_instance_proxies (
    candidate_id VARCHAR,
    task VARCHAR,
    expert VARCHAR,
    instance_id VARCHAR,
    n_tokens BIGINT,  -- that stand for these bytes, one that straddles their beginning included
    n_bytes BIGINT,  -- that count: the last ones that every candidate has scored
    {byte_columns}  -- null where the instance's tokens stand for no bytes
);

CREATE TEMP VIEW common_bytes AS
SELECT task, expert, instance_id, min(n_bytes) FILTER (n_bytes > 0) AS n_common
FROM instance_proxies
GROUP BY task, expert, instance_id;
