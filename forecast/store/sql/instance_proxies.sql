-- One row per (candidate, task, expert, instance) with the 80 proxies as columns.
-- Sources: tokens (the lake's rows of this run), vocabulary (candidate_id, vocab_size),
--          dropped (task, expert, instance_id that some candidate could not read).
CREATE TABLE instance_proxies AS
WITH token AS (
    SELECT
        candidate_id, task, expert, instance_id, token_id, n_bytes, ties,
        logprob::DOUBLE AS logprob,
        top1_logprob::DOUBLE AS top1_logprob,
        rank::DOUBLE AS rank,
        entropy::DOUBLE / ln(vocab_size) AS h
    FROM tokens
    JOIN vocabulary USING (candidate_id)
    ANTI JOIN dropped USING (task, expert, instance_id)
),
spread AS (
    SELECT candidate_id, task, expert, instance_id,
        avg(-logprob) AS ce_mean,
        stddev_pop(-logprob) AS ce_sd
    FROM token
    GROUP BY ALL
),
total AS (
    SELECT candidate_id, task, count(*) AS n FROM token GROUP BY ALL
),
frequency AS (
    SELECT candidate_id, task, token_id, count(*)::DOUBLE / any_value(total.n) AS f
    FROM token JOIN total USING (candidate_id, task)
    GROUP BY ALL
),
weighted AS (
    SELECT candidate_id, task, expert, instance_id, n_bytes, ties, logprob,
    {token_columns}
    FROM token
    JOIN spread USING (candidate_id, task, expert, instance_id)
    JOIN frequency USING (candidate_id, task, token_id)
)
SELECT candidate_id, task, expert, instance_id,
    count(*) AS n_tokens,
    sum(n_bytes)::BIGINT AS n_bytes,
    avg((ties > 0)::DOUBLE) AS tie_share,
    {instance_sums}
FROM weighted
GROUP BY candidate_id, task, expert, instance_id
ORDER BY candidate_id, task, expert, instance_id;
