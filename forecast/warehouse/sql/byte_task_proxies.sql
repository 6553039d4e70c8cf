-- As task_proxies.sql, over bytes. A mean of which a part is null is null, with n_instances counting all parts.
CREATE TABLE byte_expert_proxies AS
WITH long AS (
    FROM (SELECT * EXCLUDE (n_tokens, n_bytes) FROM byte_instance_proxies)
    UNPIVOT INCLUDE NULLS (
        value FOR proxy IN (COLUMNS(* EXCLUDE (candidate_id, task, expert, instance_id)))
    )
)
SELECT candidate_id, task, expert, proxy,
    CASE WHEN count(value) = count(*) THEN avg(value ORDER BY instance_id) END AS value,
    CASE WHEN count(value) = count(*) THEN stddev_samp(value ORDER BY instance_id) END AS instance_sd,
    count(*) AS n_instances
FROM long
GROUP BY ALL
ORDER BY ALL;

CREATE TABLE byte_task_proxies AS
SELECT candidate_id, task, proxy,
    CASE WHEN count(value) = count(*) THEN avg(value ORDER BY expert) END AS value,
    CASE WHEN count(value) = count(*) THEN stddev_samp(value ORDER BY expert) END AS expert_sd,
    count(*) AS n_experts,
    sum(n_instances)::BIGINT AS n_instances
FROM byte_expert_proxies
GROUP BY ALL
ORDER BY ALL;

-- Bits per byte pooled over the instances of an expert: all nats over all bytes, so long texts count more.
CREATE TABLE bits_per_byte AS
SELECT candidate_id, task, expert,
    count(*) AS n_instances,
    sum(n_tokens)::BIGINT AS n_tokens,
    sum(n_bytes)::BIGINT AS n_bytes,
    CASE WHEN count(bits_per_byte) = count(*)
        THEN sum(bits_per_byte * n_bytes ORDER BY instance_id) * ln(2) END AS nats,
    CASE WHEN count(bits_per_byte) = count(*)
        THEN sum(bits_per_byte * n_bytes ORDER BY instance_id) / sum(n_bytes) END AS bits_per_byte
FROM byte_instance_proxies
GROUP BY ALL
ORDER BY ALL;
