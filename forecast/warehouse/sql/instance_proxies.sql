-- Adds one row per (expert, instance) of one candidate and task, with the 80 proxies as columns.
-- Sources: tokens (the lake's rows of this candidate and task),
--          dropped (task, expert, instance_id that some candidate could not read).
-- Parameter: vocab_size, real entries of the candidate's vocabulary.
INSERT INTO instance_proxies
WITH token AS (
    SELECT
        candidate_id, task, expert, instance_id, position, token_id, n_bytes, ties,
        logprob::DOUBLE AS logprob,
        top1_logprob::DOUBLE AS top1_logprob,
        rank::DOUBLE AS rank,
        entropy::DOUBLE / ln($vocab_size) AS h
    FROM tokens
    ANTI JOIN dropped USING (task, expert, instance_id)
),
frequency AS (
    SELECT token_id, count(*)::DOUBLE / (SELECT count(*) FROM token) AS f
    FROM token
    GROUP BY token_id
),
spread AS (
    SELECT expert, instance_id,
        avg(-logprob ORDER BY position) AS ce_mean,
        stddev_pop(-logprob ORDER BY position) AS ce_sd  -- updated value by value: exactly 0 for equal ones
    FROM token
    GROUP BY expert, instance_id
),
instance AS (
    SELECT candidate_id, task, expert, instance_id,
        count(*) AS n_tokens,
        sum(n_bytes)::BIGINT AS n_bytes,
        avg((ties > 0)::DOUBLE) AS tie_share,
        {token_lists}
    FROM token
    JOIN spread USING (expert, instance_id)
    JOIN frequency USING (token_id)
    GROUP BY candidate_id, task, expert, instance_id
)
SELECT candidate_id, task, expert, instance_id, n_tokens, n_bytes, tie_share,
    {instance_scores}
FROM instance
ORDER BY expert, instance_id;
