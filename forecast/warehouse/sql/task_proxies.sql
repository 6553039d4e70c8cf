-- Instance -> mean over a task's instances (per expert) -> mean over experts, with both spreads (n - 1) kept.
CREATE TABLE expert_proxies AS
WITH long AS (
    UNPIVOT (SELECT * EXCLUDE (n_tokens, n_bytes, tie_share) FROM instance_proxies)
    ON COLUMNS(* EXCLUDE (candidate_id, task, expert, instance_id))
    INTO NAME proxy VALUE value
)
SELECT candidate_id, task, expert, proxy,
    avg(value ORDER BY instance_id) AS value,
    stddev_samp(value ORDER BY instance_id) AS instance_sd,  -- null for a single instance
    count(*) AS n_instances
FROM long
GROUP BY ALL
ORDER BY ALL;

CREATE TABLE task_proxies AS
SELECT candidate_id, task, proxy,
    avg(value ORDER BY expert) AS value,
    stddev_samp(value ORDER BY expert) AS expert_sd,  -- null for a single expert
    count(*) AS n_experts,
    sum(n_instances)::BIGINT AS n_instances
FROM expert_proxies
GROUP BY ALL
ORDER BY ALL;
